"""Measurements: ``fedpress bench codecs`` and ``fedpress bench traffic``; the others are modules to run.

python -m fedpress.simulations.benchmarks.wire
"""

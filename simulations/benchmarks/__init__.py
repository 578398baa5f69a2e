"""Measurements, each run by ``python -m fedpress.simulations.benchmarks.NAME``."""

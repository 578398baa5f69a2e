"""heart: 13 measurements at four hospitals, two classes, 184 for the test, with a perceptron."""

from __future__ import annotations

from fedpress.simulations.tasks.heart import data, model

__all__ = ["data", "model"]

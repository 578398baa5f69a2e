"""What a round's updates do to each kind of tensor (``params``): one place, so that a strategy sees weights alone.

    weight      the strategy reads, averages and steps it
    statistic   the weighted mean of the clients' values, whatever the strategy and its learning rate
    frozen      stays as it is, whatever arrives

A client's statistic is its value, not a change: a late one is taken as it is beside the newest version, not added to
it, so that a mean of variances is a variance. What a lossy codec made of it may still be none: a variance that falls
keeps at least ``1 / 64`` of itself in one version. At 0 a normalisation layer would multiply its inputs by
``1 / sqrt(eps)``. Under central privacy nothing of statistics is released, and they stay as the run began.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from fedpress.params import Array, Spec, Tensors, add, subtract
from fedpress.server.strategies import Aggregate, Arrival, Strategy

#: The least share of itself that a variance keeps in one version.
_LEAST: Final = np.float32(1 / 64)


def weights(spec: Spec) -> Spec:
    """What a strategy steps."""
    return Spec(tuple(t for t in spec if t.kind == "weight"))


def moving(spec: Spec) -> Spec:
    """What updates are summed up of."""
    return Spec(tuple(t for t in spec if t.kind != "frozen"))


def read(strategy: Strategy, spec: Spec, update: Tensors, arrival: Arrival) -> Tensors:
    """An update of ``spec`` as it is folded: its weights as the strategy reads them, its statistics against the newest
    version, nothing of what is frozen."""
    seen = strategy.read(_of(spec.named("weight"), update), arrival)
    names = spec.named("statistic")
    statistics = _of(names, update)
    if names and arrival.staleness:
        statistics = add(statistics, subtract(_of(names, arrival.base()), _of(names, arrival.newest())))
    return {**seen, **statistics}


def step(strategy: Strategy, spec: Spec, model: Tensors, round_: Aggregate, state: Tensors) -> tuple[Tensors, Tensors]:
    """The next version of a model of ``spec``, in its order, and the strategy's next state."""
    names = spec.named("weight")
    stepped, state = strategy.step(_of(names, model), replace(round_, mean=_of(names, round_.mean)), state)
    averaged = {n: _averaged(n, model[n], round_.mean[n]) for n in spec.named("statistic") if n in round_.mean}
    return {**model, **stepped, **averaged}, state


def _of(names: tuple[str, ...], tensors: Tensors) -> dict[str, Array]:
    return {n: tensors[n] for n in names}


def _averaged(name: str, old: Array, change: Array) -> Array:
    new: Array = np.add(old, change)
    is_variance = name.endswith("var") and bool((old >= 0).all())
    return np.maximum(new, _LEAST * old) if is_variance else new

"""What travels: the shared tensors of the model, and what a strategy sends beside them.

A *part* is one travelling tensor. Most are tensors of the model and bear its names. A strategy may add others, each
shaped like a tensor of the model: control variates, the models of further clusters. Their names have a *group* in
front, ``control:fc.weight``; every group is coded by itself (``compression.grouped``), because what differs in kind
differs in scale. What each part is before round 1 follows from the run's seed, so that no first version has to
travel:

    start 0    the model's tensor as the seed draws it
    start 1    zeros
    start n    the model's tensor, its elements in an order drawn from n: what is drawn independently stays so drawn
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from fedpress.compression.stream import Stream
from fedpress.errors import SpecError
from fedpress.params import Array, Kind, Spec, Tensors, TensorSpec
from fedpress.protos import fleet_pb2 as pb

ZEROS: Final = 1
_NUMBERS: Final[Mapping[Kind, pb.Kind]] = {
    "weight": pb.KIND_WEIGHT,
    "statistic": pb.KIND_STATISTIC,
    "frozen": pb.KIND_FROZEN,
}
#: Most bytes that parts may have together, in models.
_MOST_MODELS: Final = 16


class Part(NamedTuple):
    """A travelling tensor, the model's tensor ``of`` whose shape it has, and how it begins (``start``)."""

    name: str
    of: str
    start: int = 0

    @property
    def group(self) -> str:
        """What stands before the colon; "" for the model itself."""
        return group(self.name)


Layout: TypeAlias = tuple[Part, ...]


def group(name: str) -> str:
    """The group of a travelling tensor."""
    return name.rpartition(":")[0]


def plain(names: Iterable[str]) -> Layout:
    """These tensors of the model, as they are."""
    return tuple(Part(name, name) for name in names)


def beside(label: str, names: Iterable[str], start: int = ZEROS) -> Layout:
    """A group of parts shaped like these tensors of the model."""
    return tuple(Part(f"{label}:{name}", name, start) for name in names)


def grouped(label: str, tensors: Tensors) -> dict[str, Array]:
    """Tensors under their names in a group."""
    return {f"{label}:{name}": array for name, array in tensors.items()}


def part(label: str, tensors: Tensors) -> dict[str, Array]:
    """The tensors of one group under the model's names; of "": those that are in no group."""
    start = f"{label}:" if label else ""
    return {n[len(start) :]: a for n, a in tensors.items() if group(n) == label}


def spec_of(layout: Layout, full: Spec) -> Spec:
    """The spec of what travels, for a model of spec ``full``. The model's tensors and copies of them are of its kinds;
    what begins at zeros is kept beside a weight, and as one."""
    like = {t.name: t for t in full}
    found = []
    for p in layout:
        t = like[p.of]
        found.append(TensorSpec(p.name, t.shape, t.dtype, "weight" if p.start == ZEROS else t.kind))
    return Spec(tuple(found))


def begin(layout: Layout, initial: Tensors) -> dict[str, Array]:
    """What travels before round 1, from the model as the run's seed draws it."""
    return {p.name: _started(initial[p.of], p) for p in layout}


def _started(array: Array, part: Part) -> Array:
    if part.start == 0:
        return array
    if part.start == ZEROS:
        return np.zeros_like(array)
    order = np.argsort(Stream.of("layout", part.start, part.of).u64(array.size), kind="stable")
    return np.ravel(array)[order].reshape(array.shape)


def to_infos(layout: Layout, spec: Spec) -> list[pb.TensorInfo]:
    """As it is told to devices."""
    return [
        pb.TensorInfo(
            name=t.name,
            shape=t.shape,
            dtype=t.dtype,
            of=p.of if p.of != p.name else "",
            start=p.start,
            kind=kind_number(t.kind),
        )
        for p, t in zip(layout, spec, strict=True)
    ]


def kind_number(kind: Kind) -> pb.Kind:
    """A kind's number on the wire."""
    return _NUMBERS[kind]


def kind_named(number: int) -> Kind:
    """Inverse of ``kind_number``. Raises SpecError for a number that stands for none."""
    for kind, known in _NUMBERS.items():
        if known == number:
            return kind
    raise SpecError(f"Expected the number of a kind of tensor ({', '.join(_NUMBERS)}), got {number}.")


def from_infos(infos: Sequence[pb.TensorInfo], own: Spec) -> tuple[Layout, Spec]:
    """Inverse of ``to_infos``, checked against the device's own whole model. Raises SpecError, naming the tensor."""
    layout = tuple(Part(t.name, t.of or t.name, t.start) for t in infos)
    spec = Spec(tuple(TensorSpec(t.name, tuple(t.shape), t.dtype, kind_named(t.kind)) for t in infos))
    mine = {t.name: t for t in own}
    for p, t in zip(layout, spec, strict=True):
        if p.name != p.of and not p.name.endswith(f":{p.of}"):
            raise SpecError(
                f"Expected '{p.name}' to bear the name of '{p.of}', whose shape it has, or a group before it."
            )
        model = mine.get(p.of)
        if model is None or (model.shape, model.dtype) != (t.shape, t.dtype):
            have = "no such tensor" if model is None else f"{model.dtype}{list(model.shape)}"
            raise SpecError(
                f"The run trains a tensor '{p.of}' {t.dtype}{list(t.shape)}, this device's model has {have}: "
                "is its task, or its version of it, another one?"
            )
    for ours, t in zip(spec_of(layout, own), spec, strict=True):
        if ours.kind != t.kind:
            raise SpecError(other_kind(t.name, t.kind, ours.kind))
    for label in {p.group for p in layout}:
        of = [p.of for p in layout if p.group == label]
        if of != [n for n in own.names if n in set(of)]:
            raise SpecError(
                "The run's tensors are those of this device's model in another order: is its task another one?"
            )
    if spec.nbytes > _MOST_MODELS * own.nbytes:
        raise SpecError(
            f"Expected at most {_MOST_MODELS} times this device's model to travel, got {spec.nbytes} bytes."
        )
    return layout, spec


def other_kind(name: str, runs: Kind, devices: Kind) -> str:
    """How to say that a device's tensor is of another kind than the run's."""
    said: Mapping[Kind, str] = {"weight": "weight", "statistic": "statistic", "frozen": "frozen tensor"}
    return (
        f"Expected tensor '{name}' as a {said[runs]} as in the run, got a {said[devices]}: does this device's task "
        "freeze other parameters, or keep other buffers?"
    )

"""One codec for each group of tensors: what differs in meaning or in scale is coded apart.

A group is of one name (``compression.layout``) and one kind (``params.Kind``): the model's weights, its statistics, its
frozen tensors, and the same of whatever travels beside the model.

    weights      the codec that the plan names, with its own scales, feedback, memory, prediction and hints
    the rest     ``EXACT``, to the bit. Statistics are rounded before, each to its own precision
                 (``compression.statistics``), unless the plan's codec is exact itself; what is frozen does not change,
                 and costs nothing.

Payload: for each group, in the order of the spec, the length of its payload as a base-128 varint
(``fedpress.compression.varint``; the last group's goes without) and the payload. Tensors of one group have no such
frame: their bytes are the codec's own. No tensors have no groups and no bytes.

A group that did not change at all has a payload of no bytes, and both ends' states of it stay as they are: a round in
which a group is left alone is, to error feedback, a missed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from fedpress.compression.codec import Bytes, Codec, Context, Loss, State, Trip, Wire, part, prefixed
from fedpress.compression.layout import group
from fedpress.compression.lossless import Lossless
from fedpress.compression.stream import Stream
from fedpress.compression.varint import read_varint, varint
from fedpress.errors import DecodeError
from fedpress.params import Array, Kind, Spec, Tensors, zeros

EXACT: Final = Lossless()


class Group(NamedTuple):
    """Tensors that are coded together. ``label`` files what is remembered of them."""

    label: str
    kind: Kind
    names: tuple[str, ...]
    codec: Codec


@dataclass(frozen=True)
class Grouped:
    """``inner`` for the weights of each name by themselves, and what is right for the rest. Its id and text are that of
    ``inner``: groups follow from the spec."""

    inner: Codec
    groups: tuple[Group, ...]

    @property
    def id(self) -> str:
        """The inner codec's."""
        return self.inner.id

    @property
    def text(self) -> str:
        """The inner codec's."""
        return self.inner.text

    @property
    def commutes_with_sum(self) -> bool:
        """If the codecs of all groups do."""
        return all(g.codec.commutes_with_sum for g in self.groups)

    @property
    def unbiased(self) -> bool:
        """If the codecs of all groups are."""
        return all(g.codec.unbiased for g in self.groups)

    @property
    def keeps(self) -> float:
        """The least of all groups."""
        return min((g.codec.keeps for g in self.groups), default=1.0)

    @property
    def contractive(self) -> bool:
        """If the codecs of all groups are."""
        return all(g.codec.contractive for g in self.groups)

    def init(self, spec: Spec) -> State:
        """A state for each group."""
        return prefixed({g.label: g.codec.init(_of(g, spec)) for g in self.groups})

    def memory(self, spec: Spec) -> State:
        """A receiver's memory for each group."""
        return prefixed({g.label: g.codec.memory(_of(g, spec)) for g in self.groups})

    def rest(self, spec: Spec) -> Spec:
        """What all groups leave."""
        return Spec(tuple(t for g in self.groups for t in g.codec.rest(_of(g, spec))))

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """Each group, its length in front."""
        return self.trip(tensors, state, context, rng)[:2]

    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """See ``Codec.trip``: the groups' losses together, those of the weights alone where there are any."""
        payloads: list[bytes] = []
        states: dict[str, State] = {}
        arrived: dict[str, Array] = {}
        losses: dict[Kind, list[Loss]] = {}
        for g in self.groups:
            some = {name: tensors[name] for name in g.names}
            if not _changed(some):
                payloads, states[g.label] = [*payloads, b""], part(state, g.label)
                arrived.update(some)
                continue
            made = g.codec.trip(some, part(state, g.label), _own(context, g), rng)
            payloads.append(bytes(made.wire.side))
            states[g.label] = made.state
            arrived.update(made.arrived)
            losses.setdefault(g.kind, []).append(made.loss)
        some_losses = losses.get("weight") or [loss for found in losses.values() for loss in found]
        loss = Loss(sum(loss.given for loss in some_losses), sum(loss.lost for loss in some_losses))
        return Trip(Wire(_framed(payloads), {}), prefixed(states), {n: arrived[n] for n in tensors}, loss)

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Inverse of ``encode``. Raises DecodeError."""
        tensors: dict[str, Array] = {}
        states: dict[str, State] = {}
        data: Bytes = wire.side
        for g in self.groups:
            of, size = _of(g, spec), len(data)
            if g is not self.groups[-1]:
                size, at = read_varint(data, 0)
                data = data[at:]
            if size > (most := min(len(data), g.codec.max_bytes(of))):
                raise DecodeError(f"Expected a group of at most {most} bytes, got one of {size}.")
            mine = part(state, g.label)
            if size:
                some, states[g.label] = g.codec.decode(Wire(data[:size], {}), mine, _own(context, g), of)
            else:
                some, states[g.label] = zeros(of), mine
            tensors.update(some)
            data = data[size:]
        return {name: tensors[name] for name in spec.names}, prefixed(states)

    def error_bound(self, tensors: Tensors) -> float:
        """The sum of the groups' bounds."""
        return sum(g.codec.error_bound({name: tensors[name] for name in g.names}) for g in self.groups)

    def max_bytes(self, spec: Spec) -> int:
        """The groups' bounds, and their lengths."""
        sizes = [g.codec.max_bytes(_of(g, spec)) for g in self.groups]
        return sum(sizes) + sum(len(varint(size)) for size in sizes[:-1])

    def exact(self, tensors: Tensors, encode: Callable[[Tensors], bytes | None]) -> bytes | None:
        """The payload that decodes to exactly these tensors, the weights of each name ``encode``d by themselves; None
        if one cannot be."""
        payloads: list[bytes] = []
        for g in self.groups:
            some = {name: tensors[name] for name in g.names}
            made = b"" if not _changed(some) else encode(some) if g.kind == "weight" else _to_the_bit(some)
            if made is None:
                return None
            payloads.append(made)
        return _framed(payloads)


def per_group(codec: Codec, spec: Spec) -> Codec:
    """``codec``, applied to each group by itself where ``spec`` has several, or none, or other things than weights."""
    if isinstance(codec, Grouped):
        return codec
    found = tuple(_groups(codec, spec))
    return found[0].codec if len(found) == 1 else Grouped(codec, found)


def _groups(codec: Codec, spec: Spec) -> Iterator[Group]:
    """In the order in which they come. What is remembered of weights is filed under their group's name."""
    alike: Mapping[Kind, Kind] = {"statistic": "weight"} if codec.keeps == 1.0 else {}
    keys = {t.name: (group(t.name), alike.get(t.kind, t.kind)) for t in spec}
    for name, kind in dict.fromkeys(keys.values()):
        names = tuple(n for n, key in keys.items() if key == (name, kind))
        label, own = (name, codec) if kind == "weight" else (f"{name}~{kind}", EXACT)
        yield Group(label, kind, names, own)


def _of(g: Group, spec: Spec) -> Spec:
    names = set(g.names)
    return Spec(tuple(t for t in spec if t.name in names))


def _own(context: Context, g: Group) -> Context:
    """What is known of a group: of the newest download's step its own tensors, if all are there."""
    if context.step is None:
        return context
    step = {name: context.step[name] for name in g.names if name in context.step}
    return replace(context, step=step if len(step) == len(g.names) else None)


def _to_the_bit(tensors: Tensors) -> bytes:
    return bytes(EXACT.encode(tensors, {}, Context(), Stream(0))[0].side)


def _framed(payloads: Sequence[bytes]) -> bytes:
    """Payloads behind their lengths, but for the last one's."""
    return b"".join([*(varint(len(p)) + p for p in payloads[:-1]), *payloads[-1:]])


def _changed(tensors: Tensors) -> bool:
    return any(array.any() for array in tensors.values())

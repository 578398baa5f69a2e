"""One codec for each group of tensors (``compression.layout``): what differs in scale is coded apart.

Payload: for each group, in the order of the spec, the length of its payload as a base-128 varint
(``fedpress.compression.varint``; the last group's goes without) and the payload. Tensors of one group have no such
frame: their bytes are the codec's own. No tensors have no groups and no bytes.

A group that did not change at all has a payload of no bytes, and both ends' states of it stay as they are: a round in
which a group is left alone is, to error feedback, a missed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fedpress.compression.codec import Bytes, Codec, Context, Loss, State, Trip, Wire, part, prefixed
from fedpress.compression.layout import group
from fedpress.compression.stream import Stream
from fedpress.compression.varint import read_varint, varint
from fedpress.errors import DecodeError
from fedpress.params import Array, Spec, Tensors, zeros


@dataclass(frozen=True)
class Grouped:
    """``inner`` for each group by itself. Keeps the laws that ``inner`` keeps; its id and text are that one's."""

    inner: Codec

    @property
    def id(self) -> str:
        """The inner codec's."""
        return self.inner.id

    @property
    def text(self) -> str:
        """The inner codec's: groups follow from the spec."""
        return self.inner.text

    @property
    def commutes_with_sum(self) -> bool:
        """As the inner codec."""
        return self.inner.commutes_with_sum

    @property
    def unbiased(self) -> bool:
        """As the inner codec."""
        return self.inner.unbiased

    @property
    def keeps(self) -> float:
        """As the inner codec: each group keeps that share."""
        return self.inner.keeps

    @property
    def contractive(self) -> bool:
        """As the inner codec."""
        return self.inner.contractive

    def init(self, spec: Spec) -> State:
        """A state for each group."""
        return prefixed({label: self.inner.init(of) for label, of in _groups(spec)})

    def memory(self, spec: Spec) -> State:
        """A receiver's memory for each group."""
        return prefixed({label: self.inner.memory(of) for label, of in _groups(spec)})

    def rest(self, spec: Spec) -> Spec:
        """What all groups leave."""
        return Spec(tuple(t for _, of in _groups(spec) for t in self.inner.rest(of)))

    def encode(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> tuple[Wire, State]:
        """Each group, its length in front."""
        return self.trip(tensors, state, context, rng)[:2]

    def trip(self, tensors: Tensors, state: State, context: Context, rng: Stream) -> Trip:
        """See ``Codec.trip``: the groups' losses together."""
        payloads: list[bytes] = []
        states: dict[str, State] = {}
        arrived: dict[str, Array] = {}
        losses: list[Loss] = []
        for label, some in _split(tensors):
            if not _changed(some):
                payloads, states[label] = [*payloads, b""], part(state, label)
                arrived.update(some)
                continue
            made = self.inner.trip(some, part(state, label), context, rng)
            payloads.append(bytes(made.wire.side))
            states[label] = made.state
            arrived.update(made.arrived)
            losses.append(made.loss)
        loss = Loss(sum(loss.given for loss in losses), sum(loss.lost for loss in losses))
        return Trip(Wire(_framed(payloads), {}), prefixed(states), {n: arrived[n] for n in tensors}, loss)

    def decode(self, wire: Wire, state: State, context: Context, spec: Spec) -> tuple[Tensors, State]:
        """Inverse of ``encode``. Raises DecodeError."""
        tensors: dict[str, Array] = {}
        states: dict[str, State] = {}
        data: Bytes = wire.side
        groups = list(_groups(spec))
        for label, of in groups:
            size = len(data)
            if label != groups[-1][0]:
                size, at = read_varint(data, 0)
                data = data[at:]
            if size > (most := min(len(data), self.inner.max_bytes(of))):
                raise DecodeError(f"Expected a group of at most {most} bytes, got one of {size}.")
            mine = part(state, label)
            if size:
                some, states[label] = self.inner.decode(Wire(data[:size], {}), mine, context, of)
            else:
                some, states[label] = zeros(of), mine
            tensors.update(some)
            data = data[size:]
        return {name: tensors[name] for name in spec.names}, prefixed(states)

    def error_bound(self, tensors: Tensors) -> float:
        """The sum of the groups' bounds."""
        return sum(self.inner.error_bound(some) for _, some in _split(tensors))

    def max_bytes(self, spec: Spec) -> int:
        """The groups' bounds, and their lengths."""
        sizes = [self.inner.max_bytes(of) for _, of in _groups(spec)]
        return sum(sizes) + sum(len(varint(size)) for size in sizes[:-1])


def per_group(codec: Codec, spec: Spec) -> Codec:
    """``codec``, applied to each group by itself where ``spec`` has several, or none."""
    one = len({group(name) for name in spec.names}) == 1
    return codec if one or isinstance(codec, Grouped) else Grouped(codec)


def each_group(encode: Callable[[Tensors], bytes | None], tensors: Tensors) -> bytes | None:
    """The payload that ``Grouped`` would decode, each group ``encode``d by itself; None if one cannot be."""
    groups = list(_split(tensors))
    if len(groups) == 1:
        return encode(tensors)
    payloads = [encode(some) if _changed(some) else b"" for _, some in groups]
    return None if None in payloads else _framed([p for p in payloads if p is not None])


def _framed(payloads: Sequence[bytes]) -> bytes:
    """Payloads behind their lengths, but for the last one's."""
    return b"".join([*(varint(len(p)) + p for p in payloads[:-1]), *payloads[-1:]])


def _changed(tensors: Tensors) -> bool:
    return any(array.any() for array in tensors.values())


def _split(tensors: Tensors) -> Iterator[tuple[str, Tensors]]:
    """Groups and their tensors, in the order in which they come."""
    for label, of in _groups(Spec.of(tensors)):
        yield label, {name: tensors[name] for name in of.names}


def _groups(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """Groups and their specs, in the order in which they come."""
    for label in dict.fromkeys(group(name) for name in spec.names):
        yield label, Spec(tuple(t for t in spec if group(t.name) == label))

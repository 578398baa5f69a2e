"""The download codec: how a new model version reaches devices that hold an older one, or none.

The server keeps two models: the *exact* one that the strategy steps, and the one that devices *see*, which is what
their payloads add up to. A delta is ``exact - seen``, so that what one delta loses the next one carries: the feedback
is built in ("DoubleSqueeze", Tang et al. 2019, the server's half). Device and server make the seen model by the same
code, one IEEE addition per parameter, and name it by its content hash; a device that arrives at another hash fetches a
snapshot.

    mode "delta"   the first version is a full payload, every other one a delta against the version before
    mode "full"    every version is a full payload

A full payload is coded by the last stage of the chain alone: a sparsifier would leave most of the model at zero. A
device that missed rounds fetches the deltas it missed, or a snapshot of the seen model in float32, whichever is fewer
bytes (``recipe``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np

from fedpress.compression.chain import Chain
from fedpress.compression.codec import NOTHING, Bytes, Codec, Context
from fedpress.compression.payload import seal, unseal
from fedpress.compression.raw import Raw
from fedpress.compression.registry import parse
from fedpress.compression.stream import Stream
from fedpress.errors import CodecError, DecodeError, SpecError
from fedpress.params import Array, Spec, Tensors, add, content_hash, subtract

Mode: TypeAlias = Literal["delta", "full"]
_FRESH: Final = Context()


class Link(NamedTuple):
    """One payload of a history, without its bytes: from version ``base_hash`` ("" if full) to version ``hash``."""

    codec: str
    full: bool
    base_hash: str
    hash: str
    bytes: int


@dataclass(frozen=True)
class Step:
    """A published version: its payload, and the model ``seen`` by whoever decodes it."""

    link: Link
    payload: bytes
    seen: Tensors


@dataclass(frozen=True)
class Publisher:
    """Makes a ``Step`` of each model version. Raises CodecError for a codec that cannot serve a download."""

    codec: Codec
    mode: Mode
    spec: Spec

    def __post_init__(self) -> None:
        if len(self.codec.init(self.spec)):
            raise CodecError(
                f"Expected a download codec without memory, got '{self.codec.text}': downloads have feedback built in."
            )
        if self.mode == "full" and isinstance(self.codec, Chain):
            raise CodecError(
                f"Expected a download codec of one stage for whole models, such as 'int8', got '{self.codec.text}'."
            )

    def publish(self, exact: Tensors, seen: Tensors | None, seen_hash: str, version: int) -> Step:
        """The step from ``seen``, the version ``seen_hash`` (None and "": devices hold nothing yet), to ``exact``.
        ``version`` keys the randomness.

        Raises SpecError for tensors of another spec, or that are not finite.
        """
        self.spec.check(exact, "the model to publish")
        base, base_hash = (None, "") if self.mode == "full" else (seen, seen_hash)
        codec = self.codec.stages[-1] if base is None and isinstance(self.codec, Chain) else self.codec
        change = exact if base is None else subtract(exact, base)
        payload, _ = seal(codec, change, NOTHING, _context(base_hash), Stream.of("download", version))
        model = _apply(codec, base, base_hash, payload, self.spec)
        return Step(Link(codec.text, base is None, base_hash, content_hash(model), len(payload)), payload, model)


def snapshot(seen: Tensors) -> bytes:
    """A full payload of codec ``raw``: the seen model to the bit."""
    return seal(Raw(), seen, NOTHING, _FRESH, Stream(0))[0]


def recipe(history: Sequence[Link], held: str, spec: Spec) -> list[Link]:
    """The cheapest payloads, in order, that lead a device from version ``held`` ("": none) to the newest one.

    ``history`` is oldest first and may have lost its beginning. [] if the device is current. The last resort is the
    link of a ``snapshot``, which need not be in ``history``.
    """
    wanted = history[-1].hash
    if held == wanted:
        return []
    resort = Link(Raw.id, True, "", wanted, spec.nbytes)
    chain: list[Link] = []
    for link in reversed(history):
        chain.append(link)
        if link.hash != wanted or sum(part.bytes for part in chain) >= resort.bytes:
            break
        if link.full or link.base_hash == held:
            return chain[::-1]
        wanted = link.base_hash
    return [resort]


def rebuild(
    base: Tensors | None, base_hash: str, blobs: Iterable[tuple[str, bool, Bytes]], spec: Spec, expected_hash: str
) -> Tensors:
    """The model that ``blobs`` of (codec text, full, payload) make of ``base``, the version named ``base_hash``
    (None and "": the device holds nothing).

    The base's name is trusted and the result's is not: it is hashed, once per payload. Raises DecodeError if a payload
    is malformed, or if the result is not the version named ``expected_hash``.
    """
    model, name = base, base_hash
    for text, full, payload in blobs:
        if not full and model is None:
            raise DecodeError("Expected a full payload first, got a delta: this device holds no model.")
        try:
            model = _apply(parse(text), None if full else model, "" if full else name, payload, spec)
        except (CodecError, SpecError) as error:
            raise DecodeError(f"A download does not fit this device: {error}") from error
        name = content_hash(model)
    if model is None or name != expected_hash:
        raise DecodeError(f"Expected model {expected_hash[:12]}, rebuilt {name[:12] or 'nothing'}: fetch a snapshot.")
    return model


def _context(base_hash: str) -> Context:
    """Shared randomness: from the base of a delta, which both ends hold; none for a full payload."""
    return Context(seed=int(base_hash[:15], 16)) if base_hash else _FRESH


def _apply(codec: Codec, base: Tensors | None, base_hash: str, payload: Bytes, spec: Spec) -> dict[str, Array]:
    """The model after one payload, in fresh arrays: what device and server compute alike."""
    if base is not None:
        spec.check(base, "the base model")
    change, _ = unseal(codec, payload, NOTHING, _context(base_hash), spec)
    if base is None:
        return {n: a if a.flags.writeable else np.array(a) for n, a in change.items()}
    with np.errstate(over="ignore"):  # a hostile delta may overflow: the hash will tell
        return add(base, change)

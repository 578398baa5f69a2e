"""The download codec: how a new model version reaches devices that hold an older one, or none.

The server keeps two models: the *exact* one that the strategy steps, and the one that devices *see*, which is what
their payloads add up to. A delta is ``exact - seen``, so that what one delta loses the next one carries: the feedback
is built in ("DoubleSqueeze", Tang et al. 2019, the server's half; EF21-P, Gruntkowska et al. 2023). Device and server
make the seen model by the same code, one IEEE addition per parameter, and name it by its content hash; a device that
arrives at another hash fetches a snapshot.

    mode "delta"   version 0 is the *origin*, which every device makes for itself; every other one is a delta against
                   the version before
    mode "full"    every version is a full payload

A codec that promises no progress (law 6), and would lose nearly all of a delta, is replaced for that version.

The origin is the initial model under the run's seed, rounded to a grid (``origin``). A device that cannot make it, or
makes another one, fetches a snapshot: the seen model in float32. One whose version the server has forgotten begins anew
from the origin.

A device that missed rounds fetches the deltas it missed, one *direct* delta from its version to the newest one, or a
snapshot, whichever is fewest bytes (``recipe``). Direct deltas are possible because seen models lie on a *lattice*,
with a codec whose sums are exact (``ladder``): its steps are powers of two, and so is each tensor's grid in the origin.
Every weight in a seen model is then a whole multiple m of the finest of them, g, and while |m| < 2**24 (weights up to
256 times their tensor's largest initial one, unless steps are finer than the grid) float32 holds it and every sum and
difference of two without rounding; there is no negative zero, since x + 0, x - x and a step's multiples give none. The
same goes for nearly all statistics, whose changes have 8 bits of mantissa. So a seen model does not depend on the path
that led to it; the difference of any two is a whole multiple of some step, which
``DeadZone.exact`` codes without loss. The server checks the result's hash before it offers a direct delta, so that
numbers beyond that range cost bytes, never a wrong model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np

from fedpress.compression.chain import Chain
from fedpress.compression.codec import NOTHING, Bytes, Codec, Context, Loss
from fedpress.compression.deadzone import DeadZone
from fedpress.compression.grouped import Grouped, per_group
from fedpress.compression.payload import Sealed, max_bytes, seal, sealed, unseal
from fedpress.compression.predict import Predict
from fedpress.compression.raw import Raw
from fedpress.compression.registry import ids_of, parse
from fedpress.compression.statistics import change, to_bfloat16
from fedpress.compression.stream import Stream
from fedpress.compression.wrapper import INSTEAD
from fedpress.errors import CodecError, DecodeError, SpecError
from fedpress.params import Array, Kind, Spec, Tensors, add, content_hash, finite, subtract

Mode: TypeAlias = Literal["delta", "full"]
_FRESH: Final = Context()


class Link(NamedTuple):
    """One payload of a history, without its bytes: from version ``base_hash`` ("" if full) to version ``hash``.

    An empty ``codec`` marks the origin, which has no payload.
    """

    codec: str
    full: bool
    base_hash: str
    hash: str
    bytes: int

    @property
    def origin(self) -> bool:
        """Made by every device for itself."""
        return not self.codec


@dataclass(frozen=True)
class Step:
    """A published version: its payload, the model ``seen`` by whoever decodes it, and what a delta added (or None)."""

    link: Link
    payload: bytes
    seen: Tensors
    change: Tensors | None
    loss: Loss
    """Of the weights' change, with what earlier versions lost of theirs."""


class Rebuilt(NamedTuple):
    """A device's new model, and what the last payload added to it: None if that was a whole model."""

    model: dict[str, Array]
    change: Tensors | None


@dataclass(frozen=True)
class Publisher:
    """Makes a ``Step`` of each model version. Raises CodecError for a codec that cannot serve a download."""

    codec: Codec
    mode: Mode
    spec: Spec

    def __post_init__(self) -> None:
        if len(self.codec.init(self.spec)) or len(self.codec.memory(self.spec)):
            raise CodecError(
                f"Expected a download codec without memory, got '{self.codec.text}': downloads have feedback built in."
            )
        if Predict.id in ids_of(self.codec):
            raise CodecError(f"Expected a download codec without 'predict', which is for uploads: '{self.codec.text}'.")
        if self.mode == "full" and isinstance(self.codec, Chain | DeadZone):
            raise CodecError(
                f"Expected a download codec for whole models, such as 'int8', or mode delta, got '{self.codec.text}'."
            )

    @property
    def lattice(self) -> bool:
        """Sums of its deltas are exact, so that any two versions have a direct one."""
        return isinstance(self.codec, DeadZone) and self.codec.ladder

    def publish(self, exact: Tensors, seen: Tensors | None, seen_hash: str, version: int) -> Step:
        """The step from ``seen``, the version ``seen_hash`` (None and "": devices hold nothing yet), to ``exact``.
        ``version`` keys the randomness.

        Raises SpecError for tensors of another spec, or that are not finite.
        """
        self.spec.check(exact, "the model to publish")
        if self.mode == "delta" and seen is None:
            if not finite(exact):
                raise SpecError("Expected finite numbers in the initial model, got NaN or infinity.")
            model = origin(exact, self.spec)
            return Step(Link("", True, "", content_hash(model), 0), b"", model, None, Loss(0.0, 0.0))
        base, base_hash = (None, "") if self.mode == "full" else (seen, seen_hash)
        given = exact if base is None else change(exact, base, self.spec, self.codec)
        codec, made = self.codec, self._sealed(self.codec, given, base_hash, version)
        if base is not None and made.loss.stalls:
            codec, made = INSTEAD, self._sealed(INSTEAD, given, base_hash, version)
        model, added = _apply(codec, base, base_hash, made.payload, self.spec)
        link = Link(codec.text, base is None, base_hash, content_hash(model), len(made.payload))
        return Step(link, made.payload, model, added, made.loss)

    def direct(self, base: Tensors, base_hash: str, seen: Tensors, seen_hash: str) -> tuple[Link, bytes] | None:
        """One delta from the version ``base`` to the newest, ``seen``, without loss; None if there is none."""
        if not isinstance(self.codec, DeadZone):
            return None
        coded, missed = per_group(self.codec, self.spec), subtract(seen, base)
        payload = coded.exact(missed, self.codec.exact) if isinstance(coded, Grouped) else self.codec.exact(missed)
        if payload is None or content_hash(_apply(self.codec, base, base_hash, payload, self.spec).model) != seen_hash:
            return None
        return Link(self.codec.text, False, base_hash, seen_hash, len(payload)), payload

    def _sealed(self, codec: Codec, change: Tensors, base_hash: str, version: int) -> Sealed:
        of = per_group(codec, self.spec)
        return sealed(of, change, NOTHING, _context(base_hash), Stream.of("download", version))


def origin(initial: Tensors, spec: Spec) -> dict[str, Array]:
    """``initial`` of ``spec`` as every device makes it. Weights: each tensor in multiples of 2**-16 of the power of two
    above its largest magnitude, and no zero negative, so that taking a step off again gives the same bits. Statistics
    as they travel; what is frozen as it is."""
    return {t.name: _ORIGINS[t.kind](initial[t.name]) for t in spec}


def _on_grid(array: Array) -> Array:
    largest = float(np.abs(array).max(initial=0))
    if not 0 < largest < 2.0**100:
        return np.array(array)
    grid = np.float32(math.ldexp(1.0, max(math.frexp(largest)[1] - 16, -120)))
    found: Array = np.rint(array / grid) * grid + np.float32(0)
    return found


_ORIGINS: Final[Mapping[Kind, Callable[[Array], Array]]] = {
    "weight": _on_grid,
    "statistic": to_bfloat16,
    "frozen": np.array,
}


def snapshot(seen: Tensors, spec: Spec) -> bytes:
    """A full payload of codec ``raw``: the seen model of ``spec`` to the bit."""
    return seal(per_group(Raw(), spec), seen, NOTHING, _FRESH, Stream(0))[0]


def recipe(
    history: Sequence[Link], held: str, spec: Spec, direct: Callable[[str], Link | None] = lambda _: None
) -> list[Link]:
    """The cheapest payloads, in order, that lead a device from version ``held`` ("": none) to the newest one.

    ``history`` is oldest first and may have lost its beginning. ``direct`` gives the link of a direct delta from a
    version, where there is one; it is asked only of devices that missed a version. [] if the device is current. The
    last resort is the link of a ``snapshot``, which need not be in ``history``.
    """
    newest = history[-1].hash
    if held == newest:
        return []
    ways = [[Link(Raw.id, True, "", newest, max_bytes(Raw(), spec))]]
    chain = _chain(history, held)
    if chain:
        ways.append(chain)
    if held and len(chain) != 1 and (link := direct(held)) is not None:
        ways.append([link])
    return min(ways, key=lambda way: sum(link.bytes for link in way))


def _chain(history: Sequence[Link], held: str) -> list[Link]:
    """The payloads of ``history`` that lead from ``held`` to the newest version; [] if they do not."""
    chain: list[Link] = []
    wanted = history[-1].hash
    for link in reversed(history):
        if link.hash != wanted or link.origin:
            break
        chain.append(link)
        if link.full or link.base_hash == held:
            return chain[::-1]
        wanted = link.base_hash
    return []


def rebuild(
    base: Tensors | None, base_hash: str, blobs: Iterable[tuple[str, bool, Bytes]], spec: Spec, expected_hash: str
) -> Rebuilt:
    """The model that ``blobs`` of (codec text, full, payload) make of ``base``, the version named ``base_hash``
    (None and "": the device holds nothing).

    The base's name is trusted and the result's is not: it is hashed, once per payload. Raises DecodeError if a payload
    is malformed, or if the result is not the version named ``expected_hash``.
    """
    name, made = base_hash, None if base is None else Rebuilt(dict(base), None)
    for text, full, payload in blobs:
        if not full and made is None:
            raise DecodeError("Expected a full payload first, got a delta: this device holds no model.")
        try:
            before = None if full or made is None else made.model
            made = _apply(parse(text), before, "" if full else name, payload, spec)
        except (CodecError, SpecError) as error:
            raise DecodeError(f"A download does not fit this device: {error}") from error
        name = content_hash(made.model)
    if made is None or name != expected_hash:
        raise DecodeError(f"Expected model {expected_hash[:12]}, rebuilt {name[:12] or 'nothing'}: fetch a snapshot.")
    return made


def decode_change(link: Link, payload: Bytes, spec: Spec) -> Tensors:
    """What a delta's payload adds to the version before it. Raises DecodeError or CodecError."""
    return unseal(parse(link.codec), payload, NOTHING, _context(link.base_hash), spec)[0]


def _context(base_hash: str) -> Context:
    """Shared randomness: from the base of a delta, which both ends hold; none for a full payload."""
    return Context(seed=int(base_hash[:15], 16)) if base_hash else _FRESH


def _apply(codec: Codec, base: Tensors | None, base_hash: str, payload: Bytes, spec: Spec) -> Rebuilt:
    """The model after one payload, in fresh arrays: what device and server compute alike."""
    if base is not None:
        spec.check(base, "the base model")
    change, _ = unseal(codec, payload, NOTHING, _context(base_hash), spec)
    if base is None:
        return Rebuilt({n: a if a.flags.writeable else np.array(a) for n, a in change.items()}, None)
    with np.errstate(over="ignore"):  # a hostile delta may overflow: the hash will tell
        return Rebuilt(add(base, change), change)

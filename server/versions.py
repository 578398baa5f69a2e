"""The model's versions as devices get them: the exact model, the one that devices see, and the bytes between.

``compression.download`` holds the arithmetic; here is its history, bounded by the plan and kept in the store. Every
blob is encoded once and sent to all devices on the same base.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedpress.compression.codec import Loss, energy
from fedpress.compression.download import Link, Publisher, Step, decode_change, rebuild, recipe, snapshot
from fedpress.compression.registry import parse
from fedpress.errors import CodecError, DecodeError, PlanError, StoreError
from fedpress.params import Spec, Tensors, content_hash, subtract
from fedpress.plan import Plan
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import SHORT
from fedpress.sections import AUTO
from fedpress.server.choice import Facts, download
from fedpress.server.store import Store

#: Versions between two that the store keeps whole, as devices see them; the others are sums of payloads that it has.
_WHOLE_EVERY: Final = 10


@dataclass(frozen=True)
class Version:
    """One payload as it goes out: ``link`` says from where to where, ``blob`` is the payload's SHA-256."""

    number: int
    link: Link
    blob: str
    payload: bytes


class Versions:
    """The latest version and the history of how to get there. Lives on the store's thread."""

    def __init__(self, plan: Plan, spec: Spec, store: Store) -> None:
        settings = plan.download
        self._publisher = publisher(plan, spec)
        self._full = settings.mode == "full"
        self._keep = 1 if self._full else settings.history
        self._names = settings.history
        self._spec, self._store = spec, store
        self._history: list[Version] = []
        self._hashes: dict[int, str] = {}
        self._old_step: tuple[int, Tensors] | None = None
        self._seen: Tensors = {}
        self._snapshot: tuple[str, bytes] | None = None
        self._direct: OrderedDict[str, Version | None] = OrderedDict()
        self._bases: dict[str, str] = {}
        self._offered: dict[str, bytes] = {}
        self.exact: Tensors = {}
        self.state: Tensors = {}
        self.step: Tensors | None = None
        """What the newest version added to the one before; None of a whole model."""
        self.loss: Loss | None = None
        """What the newest version's payload lost of what it was given; None if that is not known."""
        self.moved: float | None = None
        """How far the weights of the newest version are from those before: the L2 norm of the change over theirs, of
        the exact models or of those that devices see, whichever is less. None of the first, and after a restart."""

    @property
    def hash(self) -> str:
        """Content hash of the version that work is handed out on; "" before the first."""
        return self._history[-1].link.hash if self._history else ""

    @property
    def seen(self) -> Tensors:
        """The newest version as devices see it."""
        return self._seen

    @property
    def at_origin(self) -> bool:
        """The newest version is the one that devices make for themselves."""
        return bool(self._history) and self._history[-1].link.origin

    def publish(self, exact: Tensors, state: Tensors, number: int) -> None:
        """Make ``exact`` the next version, in the caller's transaction. ``state`` is the strategy's.

        What the new version does not build on is let go of first: if this raises, only ``restore`` helps.
        """
        before, was = self.exact, self.hash
        self.exact, self.state, self.step, self._snapshot = exact, state, None, None
        self._direct.clear()
        self._bases.clear()
        if self._full:
            self._history, self._seen = [], {}
        step = self._publisher.publish(exact, self._seen or None, self.hash, number)
        self.loss = step.loss
        self.moved = self._moved(before, was, step) if was and self._spec.size else None
        version = Version(number, step.link, _sha(step.payload), step.payload)
        self._store.versions.add(number, version.link, version.payload, self._keep)
        self._store.versions.add_hash(number, version.link.hash, self._names)
        self._store.set_tensors("exact", exact)
        if step.link.origin:
            self._store.set_tensors("origin", step.seen)
            self._store.set_meta("origin", step.link.hash)
        if step.link.origin or (not step.link.full and number % min(_WHOLE_EVERY, self._keep) == 0):
            self._store.set_tensors("seen", step.seen)
            self._store.set_meta("seen", str(number))
        self._store.set_tensors("state", state)
        self._history = [*self._history, version][-self._keep :]
        self._hashes = self._store.versions.hashes()
        self._seen, self.step = step.seen, step.change

    def _moved(self, before: Tensors, was: str, step: Step) -> float:
        """See ``moved``. Of whole models, of which the last one is gone, only the hash tells what devices see."""
        if step.link.hash == was:
            return 0.0
        names = self._spec.named("weight") or self._spec.names
        length = energy({n: before[n] for n in names})
        least = math.fsum(energy({n: np.subtract(self.exact[n], before[n])}) for n in names)
        if step.change is not None:
            least = min(least, energy({n: step.change[n] for n in names}))
        return math.sqrt(least / length) if length else float(least > 0)

    def restore(self) -> None:
        """Continue from the store. Raises StoreError if it holds no version."""
        exact = self._store.tensors("exact", self._spec)
        self._history = [Version(n, link, _sha(data), data) for n, link, data in self._store.versions.all()]
        if exact is None or not self._history:
            raise StoreError("Expected a model in the run's store, found none.")
        self._hashes = self._store.versions.hashes()
        whole = int(self._store.meta("seen") or -1)
        since = [v for v in self._history if v.number > whole]
        base_hash = since[0].link.base_hash if since else self.hash
        blobs = [(v.link.codec, v.link.full, memoryview(v.payload)) for v in since]
        try:
            seen = self._store.tensors("seen", self._spec)
            self._seen = rebuild(seen, base_hash, blobs, self._spec, self.hash).model
            newest = self._history[-1]
            self.step = None if newest.link.full else decode_change(newest.link, newest.payload, self._spec)
        except DecodeError as error:
            raise StoreError(f"The versions in the run's store do not add up: {error}") from error
        self.exact, self.state = exact, self._store.tensors("state") or {}

    def recipe(self, held: str) -> list[pb.Blob]:
        """What a device that holds version ``held`` (hash; "" for none) must fetch, in order."""
        links = recipe([v.link for v in self._history], held, self._spec, self._direct_link)
        blobs = {v.link: v.blob for v in [*self._history, *filter(None, self._direct.values())]}
        return [
            pb.Blob(
                hash=bytes.fromhex(blobs[link] if link in blobs else self._whole()[0]),
                size=link.bytes if link in blobs else len(self._whole()[1]),
                codec=link.codec,
                full=link.full,
                step=link == self._history[-1].link and not link.full,
            )
            for link in links
        ]

    def named(self, start: str) -> str:
        """The hash of the version known here whose hash starts so; "" for none, or for less than its short name."""
        known = (self._store.meta("origin") or "", self.hash, *(v.link.base_hash for v in self._history))
        return next((h for h in known if h.startswith(start)), "") if len(start) >= 2 * SHORT else ""

    def hash_at(self, number: int) -> str | None:
        """Content hash of an earlier version; None if it has left the history."""
        return self._hashes.get(number)

    def step_at(self, number: int) -> Tensors | None:
        """What an earlier version of the history added to the one before it; None of a whole model. The last one that
        was asked for is kept. Raises StoreError for a version that has left the history."""
        if number == self._history[-1].number:
            return self.step
        if self._full:
            return None
        if self._old_step is None or self._old_step[0] != number:
            version = next((v for v in self._history if v.number == number), None)
            if version is None:
                raise StoreError(
                    f"Expected version {number} in the history, which begins with {self._history[0].number}."
                )
            if version.link.full:
                return None
            self._old_step = number, decode_change(version.link, version.payload, self._spec)
        return self._old_step[1]

    def seen_at(self, number: int) -> Tensors | None:
        """An earlier version as devices saw it; None where it cannot be made again to the bit: whole models are not
        kept, and a download codec without ``ladder`` cannot be traced back."""
        name = self._hashes.get(number)
        if name == self.hash:
            return self._seen
        return None if name is None else self._seen_at(name)

    def blob(self, content_hash: str) -> bytes | None:
        """The bytes with this SHA-256, if they are still kept."""
        for version in reversed(self._history):
            if version.blob == content_hash:
                return version.payload
        if content_hash in self._bases:
            found = self._direct_from(self._bases[content_hash])
            return None if found is None else found.payload
        if self._snapshot is not None and self._snapshot[0] == content_hash:
            return self._snapshot[1]
        return self._offered.get(content_hash)

    def offer(self, content_hash: str, data: bytes) -> None:
        """Let devices fetch bytes that are no version: a release."""
        self._offered = {content_hash: data}

    def _direct_link(self, held: str) -> Link | None:
        """The link of one delta from ``held`` to the newest version, if both ends know such a version."""
        known = held == self._store.meta("origin") or held in {v.link.base_hash for v in self._history}
        found = self._direct_from(held) if known and self._publisher.lattice else None
        return None if found is None else found.link

    def _direct_from(self, held: str) -> Version | None:
        """One delta from ``held``, encoded once for all devices that hold it. Kept are those used last, an
        uncompressed model's bytes of them; one that is gone when a device fetches it is made again, to the byte."""
        if held not in self._direct:
            base = self._seen_at(held)
            made = None if base is None else self._publisher.direct(base, held, self._seen, self.hash)
            self._direct[held] = None if made is None else Version(-1, made[0], _sha(made[1]), made[1])
        found = self._direct[held]
        self._direct.move_to_end(held)
        if found is not None:
            self._bases[found.blob] = held
        while sum(v.link.bytes for v in self._direct.values() if v) > self._spec.nbytes and len(self._direct) > 1:
            self._direct.popitem(last=False)
        return found

    def _seen_at(self, version_hash: str) -> Tensors | None:
        """An earlier version as devices see it: the origin, or the newest less the deltas since. On the lattice that is
        exact; where it is not, its hash tells."""
        if version_hash == self._store.meta("origin"):
            return self._store.tensors("origin", self._spec)
        model: Tensors = self._seen
        for version in reversed(self._history):
            if version.link.full:
                return None
            model = subtract(model, decode_change(version.link, version.payload, self._spec))
            if version.link.base_hash == version_hash:
                break
        return model if content_hash(model) == version_hash else None

    def _whole(self) -> tuple[str, bytes]:
        """SHA-256 and bytes of the model that devices see: made when first needed, kept until the next version."""
        if self._snapshot is None:
            data = snapshot(self._seen, self._spec)
            self._snapshot = _sha(data), data
        return self._snapshot


def publisher(plan: Plan, spec: Spec) -> Publisher:
    """What makes the plan's downloads. Raises PlanError for a codec that cannot serve them."""
    settings = plan.download
    text = download(Facts.of(plan, spec.size), settings.floor).codec if settings.codec == AUTO else settings.codec
    try:
        return Publisher(parse(text), settings.mode, spec)
    except CodecError as error:
        raise PlanError(f"{error} (download.codec)") from error


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

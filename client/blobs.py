"""The blobs of a ticket's recipe: some came along with the ticket, others are fetched, and resumed after a break.

What arrives must be as long as was said and have the hash it was asked for by; a recipe may only be so long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from fedpress.errors import Refused
from fedpress.protos import fleet_pb2 as pb

#: Most bytes a ticket's recipe may have: so many uncompressed models, and room for headers of small ones.
_MODELS: Final = 8
_SLACK: Final = 1 << 20


class Blobs:
    """Of one device, whose uncompressed model has ``nbytes``."""

    def __init__(self, nbytes: int) -> None:
        self._limit = _MODELS * nbytes + _SLACK
        self._here: dict[bytes, bytearray] = {}
        self._part = bytearray()

    @property
    def arrived(self) -> int:
        """Bytes that are here of the blob being fetched: where to go on after the link broke."""
        return len(self._part)

    def expect(self, recipe: Collection[pb.Blob]) -> None:
        """Take in the blobs that came along, as if they had been fetched; let go of what the recipe does not need."""
        for blob in recipe:
            if blob.data:
                blob.hash, blob.size = hashlib.sha256(blob.data).digest(), len(blob.data)
                self._here[blob.hash] = bytearray(blob.data)
                blob.ClearField("data")
        wanted = {blob.hash for blob in recipe}
        self._here = {name: data for name, data in self._here.items() if name in wanted}

    def needs(self, blob: pb.Blob, offset: int) -> bool:
        """A blob is still to be fetched, from ``offset`` on. Raises Refused for more than a model can need."""
        del self._part[offset:]
        if blob.hash in self._here:
            return False
        if blob.size + sum(map(len, self._here.values())) > self._limit:
            raise Refused("FAULT_MALFORMED", f"The server offers more than {self._limit} bytes for a model this size.")
        return True

    def fetch(self, blob: pb.Blob, chunks: Iterable[bytes]) -> str:
        """Take in the rest of a blob; what is wrong with what arrived, "" if it is whole."""
        part = self._part
        for chunk in chunks:
            part += chunk
            if len(part) > blob.size:
                break
        if len(part) != blob.size or hashlib.sha256(part).digest() != blob.hash:
            return f"A blob arrived with {len(part)} bytes that are not those of its hash; once more."
        self._here[blob.hash], self._part = part, bytearray()
        return ""

    def give(self, recipe: Iterable[pb.Blob]) -> Sequence[tuple[str, bool, memoryview]]:
        """All of a recipe, as ``rebuild`` wants it; nothing is kept here."""
        blobs = [(blob.codec, blob.full, memoryview(self._here[blob.hash])) for blob in recipe]
        self._here = {}
        return blobs

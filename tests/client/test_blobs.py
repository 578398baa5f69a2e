"""A server may send anything in place of a blob: only what was asked for is ever used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from fedpress.client.blobs import Blobs
from fedpress.errors import Refused, ServerGone
from fedpress.protos import fleet_pb2 as pb

DATA = bytes(range(200))


def blob(data: bytes = DATA) -> pb.Blob:
    return pb.Blob(hash=hashlib.sha256(data).digest(), size=len(data), codec="raw")


@pytest.mark.parametrize("sent", [DATA[:-1], DATA + b"x", DATA[:-1] + b"x", b""])
def test_what_is_not_the_blob_is_not_kept_and_the_blob_itself_still_is(sent: bytes) -> None:
    blobs = Blobs(1000)
    blobs.expect([blob()])
    assert blobs.needs(blob(), 0)
    assert "not those of its hash" in blobs.fetch(blob(), [sent])
    assert blobs.needs(blob(), 0)
    assert blobs.fetch(blob(), [DATA]) == ""
    assert [(codec, bytes(data)) for codec, _, data in blobs.give([blob()])] == [("raw", DATA)]


def test_no_more_is_taken_in_than_the_chunk_that_is_too_much() -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(10):
            yield bytes(100)
        raise AssertionError("went on reading")

    blobs = Blobs(1000)
    assert blobs.needs(blob(), 0)
    assert "300 bytes" in blobs.fetch(blob(), endless())


def test_a_broken_fetch_goes_on_where_it_stood() -> None:
    def broken() -> Iterator[bytes]:
        yield DATA[:70]
        raise ServerGone("cut")

    blobs = Blobs(1000)
    assert blobs.needs(blob(), 0)
    with pytest.raises(ServerGone):
        blobs.fetch(blob(), broken())
    assert blobs.arrived == 70
    assert blobs.needs(blob(), 70)
    assert blobs.fetch(blob(), [DATA[70:]]) == ""
    assert blobs.arrived == 0


def test_what_came_along_is_not_fetched_and_what_is_not_wanted_let_go() -> None:
    other = b"other" * 10
    along = pb.Blob(data=other, codec="raw")
    blobs = Blobs(1000)
    blobs.expect([along])
    assert (along.hash, along.data) == (hashlib.sha256(other).digest(), b"")
    assert not blobs.needs(blob(other), 0)
    blobs.expect([blob()])
    assert blobs.needs(blob(other), 0)


def test_offers_beyond_what_a_model_needs_are_refused() -> None:
    with pytest.raises(Refused, match="model this size"):
        Blobs(1000).needs(pb.Blob(hash=b"h", size=1 << 30), 0)

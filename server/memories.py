"""What the server remembers of each client for codecs whose receivers have memory, such as ``ef21``.

It is kept in the store, written with the acknowledgement of the update that changed it, so that device and server never
disagree about what was counted. Of each client there are at most two: what it was when the last round closed, and what
it is since. The next update is decoded from the latter. After a restart, those that were folded into the current round
are decoded once more, in the order in which they came, beginning with the former: a client may have given two, a late
one and its own. A round that closes forgets the former.

Device and server agree by a tag (``compression.memory``) in the update's header. Another tag than the server's is
refused, the device starts anew, and its next update says so with 0.
"""

from __future__ import annotations

from typing import Final

from fedpress.compression.codec import Codec, State
from fedpress.compression.grouped import per_group
from fedpress.compression.memory import tag
from fedpress.compression.registry import parse
from fedpress.errors import PlanError, Refused
from fedpress.params import Spec, from_bytes, to_bytes
from fedpress.plan import Plan
from fedpress.server.choice import possible
from fedpress.server.enrolment import CLIENT_LIMIT
from fedpress.server.store import Store

_MEGABYTE: Final = 1 << 20


class Memories:
    """All clients' memories for models of ``spec``."""

    def __init__(self, store: Store, spec: Spec) -> None:
        self._table, self._spec = store.memories, spec

    def check(self, client: str, said: int) -> None:
        """Raise Refused unless ``said`` is the tag of what the client is remembered by, or 0: it starts anew."""
        if said and said != self._table.tag(client):
            raise Refused(
                "FAULT_WRONG_MEMORY",
                "The update builds on others than the server has counted: start the codec's memory anew.",
            )

    def latest(self, client: str, codec: Codec, said: int, before: int | None = None) -> State:
        """What a client's next update decodes with, or its first one in round ``before``. ``said``: the update's tag, 0
        for what every client begins with."""
        initial = codec.memory(self._spec)
        data = self._table.read(client, before) if said and initial else None
        if data is None:
            return initial
        found = from_bytes(data)
        return {name: found[name] for name in initial}

    def keep(self, client: str, round_: int, codec: Codec, memory: State) -> None:
        """Remember what came of a client's update folded into a round; in the transaction that acknowledges it."""
        if memory:
            self._table.put(client, round_, tag(codec, memory, self._spec), to_bytes(memory))

    def settle(self) -> None:
        """A round is committed: forget what its updates were decoded with; in the same transaction."""
        self._table.settle()


def bytes_per_client(plan: Plan, spec: Spec) -> int:
    """Bytes that the plan's upload codec makes the server remember of each client, twice while it is in a round."""
    codecs = [per_group(parse(text), spec) for text in possible(plan.upload)]
    return 2 * max(sum(array.nbytes for array in codec.memory(spec).values()) for codec in codecs)


def room(plan: Plan, spec: Spec) -> int:
    """So many clients the server can remember in ``server.memory_mb``. Raises PlanError if the plan has more."""
    each, count = bytes_per_client(plan, spec), plan.clients.count
    most = plan.server.memory_mb * _MEGABYTE // each if each else CLIENT_LIMIT
    if count > most:
        raise PlanError(
            f"Expected server.memory_mb of at least {-(-each * count // _MEGABYTE)}, got {plan.server.memory_mb}: with "
            f"'{plan.upload.codec}' the server keeps {each} bytes of each of {count} clients. 'ef' in place of 'ef21' "
            "needs none."
        )
    return min(most, CLIENT_LIMIT)

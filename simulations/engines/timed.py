"""A client's own time in a simulation: what its work and its calls take, by its profile, whatever they really took.

    training         steps x step_s
    evaluation       a third of the steps in which its examples would be trained on: forward, without backward
    encoding         parameters / encode_rate
    a call           latency_s, once its effect on the server is done
    a download       latency_s + bytes / down_rate; the server read it when it began
    an upload        latency_s + bytes / up_rate; the server checks its header when it begins, and has it when it ends

Not modelled: time that the server takes, links that clients share, the envelopes of messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fedpress.errors import Refused
from fedpress.protos import fleet_pb2 as pb
from fedpress.server.federation import Federation
from fedpress.server.inbox import Stream as Upload
from fedpress.simulations.engines.inline import InlineLink
from fedpress.simulations.profiles import Profile

#: Of a training step's time, what its forward pass takes; the backward pass is about twice that.
_FORWARD: Final = 1 / 3


class OwnTime:
    """Seconds since the run began, where a client is: the event it handles, and what its action took since then."""

    def __init__(self) -> None:
        self.at = 0.0

    def spend(self, seconds: float) -> None:
        """So much later."""
        self.at += seconds


class TimedPace:
    """See ``client.pace.Pace``. ``batch``: examples per step."""

    def __init__(self, profile: Profile, own: OwnTime, batch: int) -> None:
        self._profile, self._own, self._batch = profile, own, batch

    def now(self) -> float:
        """The client's own time."""
        return self._own.at

    def took(self, began: float, *, steps: int = 0, evaluated: int = 0, encoded: int = 0) -> float:  # noqa: ARG002
        """What the profile says, which passes now."""
        steps_long = steps + _FORWARD * evaluated / self._batch
        seconds = steps_long * self._profile.step_s + encoded / self._profile.encode_rate
        self._own.spend(seconds)
        return seconds


class TimedLink(InlineLink):
    """A link that takes time, and holds a request for work until there is an answer, as a server does.

    An upload takes two events: ``begin``, and at the time which that gives, ``push``.
    """

    def __init__(self, federation: Federation, profile: Profile, own: OwnTime) -> None:
        super().__init__(federation)
        self._profile, self._own = profile, own
        self._asked: pb.WorkRequest | None = None
        self._answer: pb.WorkReply | None = None
        self._begun: Upload | pb.PushReply | Refused | None = None

    @property
    def held(self) -> bool:
        """A request for work waits at the server."""
        return self._asked is not None

    def answered(self) -> bool:
        """Whether the held request has an answer by now, for the device's next request to take."""
        if self._asked is not None and self._answer is None:
            try:
                reply = super().get_work(self._asked)
            except Refused:
                return True  # the device's next request hears it
            self._answer = None if reply.HasField("wait") else reply
        return self._answer is not None

    def let_go(self) -> None:
        """Hold the request no longer; an answer that is here stays for the next."""
        self._asked = None

    def miss(self) -> None:
        """The device sleeps instead of taking the answer: it will be another one then."""
        self._answer = None

    def enrol(self, request: pb.EnrolRequest) -> pb.EnrolReply:
        """Join."""
        self._own.spend(self._profile.latency_s)
        return super().enrol(request)

    def get_work(self, request: pb.WorkRequest) -> pb.WorkReply:
        """Ask for work, or take the answer to what was asked before. Small blobs that come along take their time."""
        answer, self._asked, self._answer = self._answer, None, None
        self._own.spend(self._profile.latency_s)
        reply = super().get_work(request) if answer is None else answer
        if reply.HasField("wait"):
            self._asked = request
        self._own.spend(sum(len(blob.data) for blob in reply.ticket.recipe) / self._profile.down_rate)
        return reply

    def fetch(self, blob: bytes, offset: int) -> Iterator[bytes]:
        """The blob in one piece."""
        self._own.spend(self._profile.latency_s)
        for data in super().fetch(blob, offset):
            seconds = len(data) / self._profile.down_rate
            self._own.spend(seconds)
            self.traffic.down.measured(len(data), self._profile.latency_s + seconds)
            yield data

    def offset(self, ticket: bytes) -> pb.OffsetReply:
        """How much of an update is there."""
        self._own.spend(self._profile.latency_s)
        return super().offset(ticket)

    def begin(self, header: pb.PushHeader, payload: bytes) -> float:
        """An upload leaves; seconds until its ``push``. One that its header alone decides is over sooner."""
        client, body = self._caller(), payload[header.offset :]
        try:
            begun = self._federation.push(client, header)
            if isinstance(begun, Upload):
                self._append(begun, header, payload)
        except Refused as refused:
            self._begun = refused
            return self._profile.latency_s
        self._begun = begun
        return self._profile.latency_s + (len(body) / self._profile.up_rate if isinstance(begun, Upload) else 0.0)

    def push(self, header: pb.PushHeader, payload: bytes) -> pb.PushReply:
        """The upload that began is here as a whole."""
        begun, self._begun = self._begun, None
        if isinstance(begun, Refused):
            raise begun
        if not isinstance(begun, Upload):
            return super().push(header, payload) if begun is None else begun
        size = len(payload) - header.offset
        self.traffic.up.measured(size, self._profile.latency_s + size / self._profile.up_rate)
        return self._finish(begun)

    def decline(self, ticket: bytes, reason: str) -> pb.DeclineReply:
        """Give a ticket back."""
        self._own.spend(self._profile.latency_s)
        return super().decline(ticket, reason)

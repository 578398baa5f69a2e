"""What is known of every client when somebody is to be invited: ``Candidate`` values, made from the store's leases and
reports and from what devices said.

Counted up as things happen, so that an invitation costs no look at old rounds; and made anew from the store at the
start, by the same three steps in the same order, so that a resumed run selects as if nothing had happened.
"""

from __future__ import annotations

from dataclasses import replace

from fedpress.protos import fleet_pb2 as pb
from fedpress.server.enrolment import Enrolment
from fedpress.server.leases import Fate
from fedpress.server.selection.candidate import Candidate, Condition
from fedpress.server.store import Store, Traffic


class Candidates:
    """All clients of a run, by id. ``candidates(client, name)`` is what the coordinator asks for."""

    def __init__(self, store: Store, enrolment: Enrolment) -> None:
        self._enrolment = enrolment
        self._known: dict[str, Candidate] = {}
        for lease, traffic, report, seconds in store.history():
            self.invited(lease.client, lease.round)
            if lease.fate is Fate.COUNTED:
                self.reported(lease.client, pb.Report.FromString(report), traffic)
            elif lease.fate is Fate.STALE and seconds:
                self.late(lease.client, seconds)

    def __call__(self, client: str, name: str) -> Candidate:
        """What is known of a client now."""
        said = self._enrolment.capabilities(client)
        return replace(
            self._of(client),
            name=name,
            link_up=said.link.up,
            link_down=said.link.down,
            condition=_condition(said.condition),
        )

    def invited(self, client: str, round_: int) -> None:
        """A client is invited to train."""
        known = self._of(client)
        self._known[client] = replace(
            known, participations=known.participations + 1, last_round=max(known.last_round, round_)
        )

    def reported(self, client: str, report: pb.Report, traffic: Traffic) -> None:
        """A client's update was counted, and what it cost."""
        self._known[client] = replace(
            self._of(client),
            examples=report.examples,
            loss=report.loss,
            train_seconds=report.train_seconds + report.encode_seconds,
            bytes_up=traffic.bytes_up,
            bytes_down=traffic.bytes_down,
            late_after=0.0,
        )

    def late(self, client: str, seconds: float) -> None:
        """A round closed without an invited client, after so many seconds."""
        self._known[client] = replace(self._of(client), late_after=seconds)

    def _of(self, client: str) -> Candidate:
        return self._known.get(client, Candidate(""))


def _condition(said: pb.Condition) -> Condition:
    """The fields that are there."""
    return Condition(**{field.name: value for field, value in said.ListFields()})

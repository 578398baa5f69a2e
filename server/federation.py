"""The server without its sockets: what each call of ``fleet.proto`` does, on one thread.

The gRPC service and the inline engine are two skins on this class; both count the same bytes because both move the same
payloads through here.

    Push: header checked -> chunks to the inbox -> checksum -> decode, NaN refused -> durable -> folded -> acknowledged
"""

from __future__ import annotations

import math
from dataclasses import replace

from fedpress.compression.codec import NOTHING, State
from fedpress.compression.layout import to_infos
from fedpress.errors import DecodeError, Refused
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL, SMALL_BYTES
from fedpress.protos.names import DIVERGED, short
from fedpress.server import events
from fedpress.server.bounds import check_report
from fedpress.server.inbox import Stream as Upload
from fedpress.server.leases import Fate, Grant, Lease, Over
from fedpress.server.run import Run
from fedpress.server.strategies import Arrival
from fedpress.server.tickets import asked, ticket


class Federation(Run):
    """A run that devices can call. Every method is on the store's thread."""

    def enrol(self, request: pb.EnrolRequest) -> pb.EnrolReply:
        """Admit a device, or know it again. Raises Refused."""
        client, key = self._enrolment.admit(request)
        self._do(self._coordinator.enrolled(client.id, client.name, self._clock()))
        self._listen(events.ClientJoined(client.name, len(self._enrolment)))
        return pb.EnrolReply(
            client_id=client.id,
            key=key,
            run_id=self.run_id,
            task=self.plan.task.name,
            spec=to_infos(self.layout, self.spec),
            long_poll_seconds=self.plan.server.long_poll_s,
            chunk_bytes=self.plan.server.chunk_bytes,
            seed=self.plan.run.seed,
            protocol=PROTOCOL,
        )

    def authenticate(self, key: bytes) -> str:
        """The id of the client whose key this is. Raises Refused."""
        return self._enrolment.authenticate(key)

    def get_work(self, client: str, request: pb.WorkRequest) -> pb.WorkReply:
        """A ticket, Finished, or Wait(0): ask again, or be held by the skin."""
        now = self._clock()
        if request.HasField("link"):
            self._enrolment.measured(client, request.link)
        if request.HasField("condition"):
            self._enrolment.changed(client, request.condition)
        self._do(self._coordinator.met(client, now))
        answer = self._coordinator.poll(client, now)
        if isinstance(answer, Grant):
            return pb.WorkReply(ticket=self._ticket(client, answer, self.versions.named(request.held.hex())))
        if isinstance(answer, Over):
            return pb.WorkReply(finished=pb.Finished(reason=answer.reason))
        return pb.WorkReply(wait=pb.Wait(seconds=0.0, reason=answer.reason))

    def blob(self, content_hash: bytes, offset: int) -> memoryview:
        """The bytes of a blob from ``offset`` on. Raises Refused."""
        data = self.versions.blob(content_hash.hex())
        if data is None:
            raise Refused("FAULT_UNKNOWN_BLOB", f"No blob {content_hash[:32].hex()} is kept here: ask for work again.")
        if offset > len(data):
            raise Refused("FAULT_BAD_OFFSET", f"Expected an offset of at most {len(data)}, got {offset}.")
        return memoryview(data)[offset:]

    def offset(self, client: str, ticket: bytes) -> pb.OffsetReply:
        """Where an upload resumes. Raises Refused."""
        lease = self._lease(ticket, client)
        return pb.OffsetReply(offset=self._inbox.offset(lease.id), acknowledged=lease.fate is Fate.COUNTED)

    def push(self, client: str, header: pb.PushHeader) -> Upload | pb.PushReply:
        """Begin or resume an upload; a PushReply if it was acknowledged before. Raises Refused."""
        lease = self._lease(header.ticket, client)
        if lease.fate is Fate.COUNTED:
            return pb.PushReply(duplicate=True)
        base = self._base(lease)
        if header.base != short(base):
            raise Refused("FAULT_WRONG_MODEL", f"Expected an update against {base[:16]}, got {header.base[:8].hex()}.")
        self._updates.memories.check(client, header.memory)
        return self._inbox.open(lease.id, header, self._updates.limit(lease))

    def append(self, client: str, upload: Upload, data: bytes) -> None:
        """Take a chunk. Raises Refused."""
        self.meter.up(client, len(data))
        self._inbox.append(upload, data)

    def suspend(self, upload: Upload) -> None:
        """The link broke in the middle of an upload: keep what arrived."""
        self._inbox.suspend(upload)

    def finish(self, client: str, upload: Upload) -> pb.PushReply:
        """The upload is complete: decode, make durable, fold. The reply acknowledges it. Raises Refused."""
        while self.full:
            self.advance()
        header = upload.header
        lease = self._lease(header.ticket, client)
        if lease.fate is Fate.COUNTED:
            return pb.PushReply(duplicate=True)
        self._base(lease)
        updates = self._updates
        name = self._enrolment.name(client)
        try:
            payload = self._inbox.payload(upload)
            update, memory = (
                (None, NOTHING) if lease.evaluate else updates.decode(lease, payload, self._memory(lease, header))
            )
            arrival = self._arrived(lease, header.report)
        except (DecodeError, Refused) as error:
            if isinstance(error, Refused) and error.fault == "FAULT_BAD_OFFSET":
                raise
            self._reject(lease, name, str(error))
            raise Refused("FAULT_MALFORMED", f"The update does not decode: {error}") from error
        with self.store.transaction():
            self._inbox.close(upload)
            if not lease.evaluate:
                updates.memories.keep(client, self.round, updates.codec(lease), memory)
            traffic = self.meter.take(client)
            traffic = replace(
                traffic, bytes_up=max(traffic.bytes_up, len(payload))
            )  # part may be from before a restart
            report = header.report.SerializeToString(deterministic=True)
            self.store.end_lease(lease.id, self.round, Fate.COUNTED, traffic, report, header.memory)
        if update is not None:
            self._candidates.reported(client, header.report, traffic)
            updates.fold(update, arrival)
        uncompressed = 0 if lease.evaluate else self.spec.nbytes
        heard = events.UpdateCounted(name, self.round, len(payload), uncompressed, arrival.staleness)
        actions = self._coordinator.counted(lease.id, self._clock())
        self._listen(heard)
        self._do(actions)
        return pb.PushReply()

    def decline(self, client: str, ticket: bytes, reason: str) -> pb.DeclineReply:
        """A device gives its ticket back. Raises Refused."""
        lease = self._lease(ticket, client)
        if lease.fate is Fate.OPEN:
            self._inbox.discard(lease.id)
            said = pb.Report(loss=math.nan) if reason.startswith(DIVERGED) else pb.Report()
            traffic, report = self.meter.take(client), said.SerializeToString(deterministic=True)
            self.store.end_lease(lease.id, self.round, Fate.DECLINED, traffic, report)
            self._listen(events.ClientFailed(self._enrolment.name(client), lease.round, f"declined: {reason[:200]}"))
            self._do(self._coordinator.declined(lease.id, self._clock()))
        return pb.DeclineReply()

    def release(self, device_class: str) -> pb.Release:
        """The shipped model for a device class, or the one for any. Raises Refused."""
        found = {r.device_class: r for r in self.store.releases.all()}
        release = found.get(device_class) or found.get("any")
        if release is None:
            raise Refused("FAULT_NO_RELEASE", f"Nothing was shipped for device class '{device_class[:40]}' yet.")
        self.versions.offer(release.hash, release.data)
        return pb.Release(
            hash=bytes.fromhex(release.hash),
            size=len(release.data),
            format=release.format,
            device_class=release.device_class,
            metrics=release.metrics,
        )

    def _ticket(self, client: str, grant: Grant, held: str) -> pb.Ticket:
        lease = grant.lease
        recipe = self.versions.recipe(held)
        for blob in recipe:
            if 0 < blob.size <= SMALL_BYTES:  # cheaper along with the ticket than by a call of its own
                blob.data = bytes(self.blob(blob.hash, 0))
                blob.ClearField("hash")
                blob.ClearField("size")
                self.meter.down(client, len(blob.data))
        if lease.id not in self._taken:
            self._taken.add(lease.id)
            if self.plan.cohort.patience:  # or it ends with its round in any case
                self.store.hand_out(lease.id)
            if recipe or self.versions.at_origin:  # which an uncompressed run would have sent
                self.meter.model(client)
            self._listen(events.WorkTaken(self._enrolment.name(client), lease.round))
        rule = self.strategy.rule(self.full_spec)
        return ticket(
            self.plan,
            lease,
            grant.seconds_left,
            rule,
            self.versions.hash,
            recipe,
            self._updates.text(lease),
            self._updates.limit(lease),
        )

    def _lease(self, ticket: bytes, client: str) -> Lease:
        name = ticket.hex()
        archived = None if name in self._coordinator.leases else self.store.lease(name)
        return self._coordinator.admit(name, client, archived)

    def _base(self, lease: Lease) -> str:
        """The hash of the version that a lease's update builds on. Raises Refused, and ends the lease, if that is
        known no more."""
        base = self.versions.hash_at(lease.base)
        if base is None:
            reason = f"Version {lease.base}, which the update builds on, has left the history (download.history)."
            self._do(self._coordinator.lapsed(lease.id, reason, self._clock()))
            raise Refused("FAULT_STALE_ROUND", reason)
        return base

    def _memory(self, lease: Lease, header: pb.PushHeader) -> State:
        return self._updates.memories.latest(lease.client, self._updates.codec(lease), header.memory)

    def _arrived(self, lease: Lease, report: pb.Report) -> Arrival:
        check_report(report)
        if not asked(self.plan, lease):  # what nobody asked for decides nothing
            for field in ("held_out", "accuracy", "held_out_loss", "others"):
                report.ClearField(field)
        arrival = self._updates.arrival(lease, report, self.round)
        if not lease.evaluate and self.strategy.share(arrival).weight <= 0:
            raise Refused("FAULT_MALFORMED", "The update's report names no examples, or steps beyond its ticket's.")
        return arrival

    def _reject(self, lease: Lease, name: str, reason: str) -> None:
        self._inbox.discard(lease.id)
        self.store.end_lease(lease.id, self.round, Fate.REJECTED, self.meter.take(lease.client))
        self._listen(events.ClientFailed(name, lease.round, f"update refused: {reason}"))
        self._do(self._coordinator.rejected(lease.id, self._clock()))

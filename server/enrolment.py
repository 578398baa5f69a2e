"""Who may take part: admits devices that can do the run's work, and knows them again by their keys.

A device chooses its key, so that an enrolment whose reply was lost is found again. The server keeps only the key's
SHA-256. A name belongs to the device that came with it first.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from typing import Final

from fedpress.compression.layout import kind_named, other_kind
from fedpress.errors import Refused, SpecError, StoreError
from fedpress.params import Spec
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL
from fedpress.server.bounds import check_capabilities, check_link
from fedpress.server.store import Client, Store

_NAME_LIMIT: Final = 128
_KEY_BYTES: Final = 16
#: Devices that a run can have, whatever its codecs.
CLIENT_LIMIT: Final = 100_000


class Enrolment:
    """All devices of a run, at most ``most``. ``codecs`` and ``trainer``: what each must be capable of; ``spec``: of
    the whole model."""

    def __init__(
        self, store: Store, codecs: Collection[str], trainer: str, spec: Spec, most: int = CLIENT_LIMIT
    ) -> None:
        self._table, self._most = store.clients, most
        self._codecs, self._trainer, self._spec = sorted(codecs), trainer, spec
        self._clients = {client.id: client for client in self._table.all()}
        self._ids = {client.key_hash: client.id for client in self._clients.values()}
        self._said = {client: pb.Capabilities.FromString(said) for client, said in self._table.capabilities().items()}

    def __len__(self) -> int:
        return len(self._clients)

    def name(self, client: str) -> str:
        """What people call a client."""
        return self._clients[client].name

    @property
    def names(self) -> dict[str, str]:
        """Client ids and names."""
        return {client.id: client.name for client in self._clients.values()}

    def capabilities(self, client: str) -> pb.Capabilities:
        """What a client said last that it can do; its link and condition are as told since."""
        return self._said[client]

    def measured(self, client: str, link: pb.LinkRates) -> None:
        """A client's link has changed. Raises Refused."""
        check_link(link)
        said = pb.Capabilities()
        said.CopyFrom(self._said[client])
        said.link.CopyFrom(link)
        self._keep(client, said)

    def changed(self, client: str, condition: pb.Condition) -> None:
        """A client is in another condition."""
        said = pb.Capabilities()
        said.CopyFrom(self._said[client])
        said.condition.CopyFrom(condition)
        self._keep(client, said)

    def admit(self, request: pb.EnrolRequest) -> tuple[Client, bytes]:
        """The device and its key: those it has by its key, if that is known, else new ones. Raises Refused."""
        self._check(request)
        key = request.key if len(request.key) == _KEY_BYTES else secrets.token_bytes(_KEY_BYTES)
        known = self._ids.get(_hash(key))
        client = self._clients[known] if known is not None else self._admit_new(request, key)
        self._keep(client.id, request.capabilities)
        return client, key

    def _admit_new(self, request: pb.EnrolRequest, key: bytes) -> Client:
        if len(self._clients) >= self._most:
            raise Refused("FAULT_BUSY", "This run has as many devices as it can hold.", retry_after=3600.0)
        device_class = request.capabilities.device_class[:_NAME_LIMIT]
        client = Client(secrets.token_hex(8), request.name, _hash(key), device_class)
        try:
            self._table.add(client)
        except StoreError as error:
            raise Refused(
                "FAULT_NOT_ENROLLED",
                f"The name '{request.name}' belongs to another device. Choose another, or restore its vault.",
            ) from error
        self._clients[client.id] = client
        self._ids[client.key_hash] = client.id
        return client

    def authenticate(self, key: bytes) -> str:
        """The id of the client whose key this is. Raises Refused.

        Found by the key's hash: how long that takes tells nothing about any key.
        """
        client = self._ids.get(_hash(key))
        if client is None:
            raise Refused("FAULT_NOT_ENROLLED", "This server does not know the device's key: enrol again.")
        return client

    def _keep(self, client: str, said: pb.Capabilities) -> None:
        if self._said.get(client) != said:
            self._said[client] = said
            self._table.set_capabilities(client, said.SerializeToString())

    def _check(self, request: pb.EnrolRequest) -> None:
        if request.protocol != PROTOCOL:
            raise Refused(
                "FAULT_PROTOCOL", f"This server speaks protocol {PROTOCOL}, the device {request.protocol}: update it."
            )
        if not request.name.isprintable() or not 0 < len(request.name) <= _NAME_LIMIT:
            raise Refused("FAULT_MALFORMED", f"Expected a printable name of 1 to {_NAME_LIMIT} characters.")
        check_capabilities(request.capabilities)
        missing = [codec for codec in self._codecs if codec not in request.capabilities.codecs]
        if missing:
            raise Refused("FAULT_INCAPABLE", f"The run needs codecs that the device lacks: {', '.join(missing)}.")
        if self._trainer not in request.capabilities.trainers:
            raise Refused("FAULT_INCAPABLE", f"The run needs the trainer '{self._trainer}' on the device.")
        if request.spec_hash and request.spec_hash.hex() != self._spec.hash:
            raise Refused("FAULT_INCAPABLE", self._other_model(request))

    def _other_model(self, request: pb.EnrolRequest) -> str:
        """How a device's model differs: by the kind of a tensor, or else in all that its hash hides."""
        numbers = list(request.kinds) or [pb.KIND_WEIGHT] * len(self._spec)
        try:
            kinds = [kind_named(number) for number in numbers]
            theirs = Spec(tuple(t._replace(kind=kind) for t, kind in zip(self._spec, kinds, strict=True)))
        except (SpecError, ValueError):  # no such kind, or another number of tensors
            theirs = self._spec
        if theirs.hash == request.spec_hash.hex():
            pairs = zip(self._spec, theirs, strict=True)
            return next(other_kind(ours.name, ours.kind, t.kind) for ours, t in pairs if ours.kind != t.kind)
        return f"The device's model for task '{request.task[:80]}' is not the one this run trains."


def _hash(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()

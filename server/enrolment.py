"""Who may take part: admits devices that can do the run's work, and knows them again by their keys.

A device chooses its key, so that an enrolment whose reply was lost is found again. The server keeps only the key's
SHA-256. A name belongs to the device that came with it first.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from typing import Final

from fedpress.errors import Refused, StoreError
from fedpress.params import Spec
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.calls import PROTOCOL
from fedpress.server.store import Client, Store

_NAME_LIMIT: Final = 128
_KEY: Final = re.compile("[0-9a-f]{32}")
_CLIENT_LIMIT: Final = 100_000


class Enrolment:
    """All devices of a run. ``codecs`` and ``trainer``: what each must be capable of; ``spec``: of the whole model."""

    def __init__(self, store: Store, codecs: Collection[str], trainer: str, spec: Spec) -> None:
        self._store = store
        self._codecs, self._trainer, self._spec = sorted(codecs), trainer, spec
        self._clients = {client.id: client for client in store.clients()}

    def __len__(self) -> int:
        return len(self._clients)

    def name(self, client: str) -> str:
        """What people call a client."""
        return self._clients[client].name

    @property
    def names(self) -> dict[str, str]:
        """Client ids and names."""
        return {client.id: client.name for client in self._clients.values()}

    def admit(self, request: pb.EnrolRequest) -> tuple[Client, str]:
        """The device and its key: the ones it came with, if they are known, else new ones. Raises Refused."""
        self._check(request)
        named = next((c for c in self._clients.values() if c.name == request.name), None)
        for known in (self._clients.get(request.client_id), named):
            if known is not None and _matches(known, request.key):
                return known, request.key
        key = request.key if _KEY.fullmatch(request.key) else secrets.token_hex(16)
        device_class = request.capabilities.device_class[:_NAME_LIMIT]
        client = Client(secrets.token_hex(8), request.name, _hash(key), device_class)
        try:
            self._store.add_client(client)
        except StoreError as error:
            raise Refused(
                "FAULT_NOT_ENROLLED",
                f"The name '{request.name}' belongs to another device. Choose another, or restore its vault.",
            ) from error
        self._clients[client.id] = client
        return client, key

    def authenticate(self, client: str, key: str) -> str:
        """The client id, if the key is its own. Raises Refused."""
        known = self._clients.get(client)
        if known is None or not _matches(known, key):
            raise Refused("FAULT_NOT_ENROLLED", "This server does not know the device or its key: enrol again.")
        return client

    def _check(self, request: pb.EnrolRequest) -> None:
        if request.protocol != PROTOCOL:
            raise Refused(
                "FAULT_PROTOCOL", f"This server speaks protocol {PROTOCOL}, the device {request.protocol}: update it."
            )
        if not request.name.isprintable() or not 0 < len(request.name) <= _NAME_LIMIT:
            raise Refused("FAULT_MALFORMED", f"Expected a printable name of 1 to {_NAME_LIMIT} characters.")
        missing = [codec for codec in self._codecs if codec not in request.capabilities.codecs]
        if missing:
            raise Refused("FAULT_INCAPABLE", f"The run needs codecs that the device lacks: {', '.join(missing)}.")
        if self._trainer not in request.capabilities.trainers:
            raise Refused("FAULT_INCAPABLE", f"The run needs the trainer '{self._trainer}' on the device.")
        if request.spec_hash and request.spec_hash != self._spec.hash:
            raise Refused(
                "FAULT_INCAPABLE", f"The device's model for task '{request.task[:80]}' is not the one this run trains."
            )
        if len(self._clients) >= _CLIENT_LIMIT and request.client_id not in self._clients:
            raise Refused("FAULT_BUSY", "This run has as many devices as it can hold.", retry_after=3600.0)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _matches(client: Client, key: str) -> bool:
    return hmac.compare_digest(client.key_hash, _hash(key))

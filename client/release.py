"""A device fetches the model that was shipped for its class: asked for by class, fetched by content hash, checked."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fedpress.client.link import Link
from fedpress.client.vault import Vault
from fedpress.errors import DecodeError, VaultError
from fedpress.protos import fleet_pb2 as pb

#: Most bytes of a release that a device will take.
LARGEST = 1 << 30


def fetch_release(link: Link, vault: Vault, device_class: str, to: Path) -> pb.Release:
    """Write the release for ``device_class`` to ``to``. The device must have enrolled in the run before.

    Raises VaultError without an identity, Refused where nothing was shipped, DecodeError if the bytes are not the
    release's.
    """
    identity = vault.identity
    if identity is None:
        raise VaultError(f"Expected a device that took part in a run, found no identity in '{vault.directory}'.")
    link.authenticate(bytes.fromhex(identity.key))
    release = link.release(device_class)
    if release.size > LARGEST:
        raise DecodeError(f"The server offers {release.size} bytes; this device takes {LARGEST} at most.")
    data = bytearray()
    for chunk in link.fetch(release.hash, 0):
        data += chunk
        if len(data) > release.size:
            break
    if len(data) != release.size or hashlib.sha256(data).digest() != release.hash:
        raise DecodeError("The release arrived damaged: its bytes do not have its hash. Fetch it again.")
    fresh = to.with_name(to.name + ".new")
    fresh.write_bytes(data)
    fresh.replace(to)
    return release

"""What a device keeps: who it is, the model it holds, its codec's residual, personal tensors, the privacy it spent.

    identity.json          who the device is, on which server and in which run; every file has mode 0600
    model.safetensors      the model version held, or one held shortly before; its hash is its content's
    state.safetensors      committed: residual and personal tensors
    pending.safetensors    the same as they will be, with the update that is on its way
    privacy.json           every noisy step ever taken; only grows
    lock                   held while a process uses the vault

A file is replaced whole: written beside, synced, renamed, the directory synced. The pending file *becomes* the state
file, so that a commit is one rename: whenever the power goes, the state is the old or the new one. (The payload then
stays in it, unread, until the next commit.) The commit itself is not synced: a power cut makes the update pending once
more, and the server says that it has it. The next update's sync makes both last. With ``durable`` false nothing is
synced: enough against a killed process, not against a power cut. POSIX only, for the lock and the rename.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from fedpress.compression.layout import group
from fedpress.errors import PrivacyError, SpecError, VaultError
from fedpress.params import Array, Spec, Tensors, content_hash, from_bytes, ordered, to_bytes
from fedpress.privacy.accounting import History, from_json, to_json
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import checksum

#: Versions between two writes of the model. A killed device then catches up from an older one, as after missed rounds,
#: and flash memory is spared writing a whole model every round.
_WRITE_EVERY: Final = 10
_LOSES: Final[Mapping[str, str]] = {
    "identity.json": "the device then enrols as a new one",
    "model.safetensors": "the device then fetches the model in full, once",
    "state.safetensors": "the error-feedback residual and the personal tensors then start anew",
    "pending.safetensors": "the update in it is then lost and its round goes on without this device",
    "privacy.json": "but the epsilon reported afterwards leaves out all that was spent before; better restore a copy",
}


@dataclass(frozen=True)
class Identity:
    """Who a device is: its id and key (hex), the host it enrolled at, the run, and the shared tensors' spec."""

    client_id: str
    key: str = field(repr=False)
    server: str
    run_id: str
    spec: Spec


@dataclass(frozen=True)
class Kept:
    """What an acknowledged round leaves behind. ``residual``: the state of the upload codec with the text ``codec``."""

    codec: str = ""
    residual: Tensors = field(default_factory=dict)
    personal: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class Pending:
    """An update on its way, and what is kept once it is acknowledged. ``header.offset`` is 0."""

    header: pb.PushHeader
    payload: bytes
    kept: Kept


class Vault:
    """A directory, used by one process at a time. Raises VaultError, naming the file and the remedy.

    ``model_hash`` is "" where no model is held.
    """

    def __init__(self, directory: Path, durable: bool = True) -> None:
        self.directory = directory
        self._durable = durable
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise VaultError(f"Cannot use '{directory}' as a vault: {error.strerror}.") from error
        try:
            self._acquire()
            self.identity: Identity | None = self._read("identity.json", _identity)
            self.model: Tensors
            self.model, self.model_hash = self._read_model()
            self.step: Tensors | None = None
            self._unwritten = 0
            self.kept: Kept = self._read("state.safetensors", lambda data: _unpack(data)[0]) or Kept()
            self.pending: Pending | None = self._read("pending.safetensors", _pending)
            self.history: History = self._read("privacy.json", lambda data: from_json(data.decode())) or ()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is held, and let another process have it."""
        if self._lock < 0:
            return
        try:
            if self._unwritten:
                self._write_model()
        finally:
            os.close(self._lock)
            self._lock = -1

    def enrol(self, identity: Identity) -> None:
        """Keep who the device is. In another run, or with another spec, model, residual and pending update are let go,
        and what a rule keeps in groups (``control:...``), whose other half was that run's server. Personal tensors and
        the privacy history stay: they belong to the device and its data."""
        old = self.identity
        if old is None or (old.run_id, old.spec) != (identity.run_id, identity.spec):
            self._remove("pending.safetensors")
            self.pending = None
            self.let_go()
            self.forget()
            own = {name: array for name, array in self.kept.personal.items() if not group(name)}
            if len(own) < len(self.kept.personal):
                self.kept = Kept(personal=own)
                self._write("state.safetensors", _pack(self.kept, {}, {}))
        if identity != old:  # last, so that a crash before it resets once more
            text = json.dumps({**vars(identity), "spec": identity.spec.to_json()})
            self._write("identity.json", text.encode())
            self.identity = identity

    def hold(self, model: Tensors, model_hash: str, step: Tensors | None = None) -> None:
        """Keep a model version whose content hash was confirmed; on disk the first, then every tenth, and on close.

        ``step``: what the newest version added to the one before, if known. Kept in memory only.
        """
        first = not self.model_hash
        self.model, self.model_hash, self.step = model, model_hash, step
        self._unwritten += 1
        if first or self._unwritten >= _WRITE_EVERY:
            self._write_model()

    def let_go(self) -> None:
        """Forget the model held: it is not what it should be."""
        self._remove("model.safetensors")
        self.model, self.model_hash, self.step, self._unwritten = {}, "", None, 0

    def propose(self, pending: Pending) -> None:
        """Keep an update before its first byte leaves."""
        payload = np.frombuffer(pending.payload, np.uint8)
        push = MessageToDict(pending.header, preserving_proto_field_name=True)
        self._write("pending.safetensors", _pack(pending.kept, {"push": push}, {"payload": payload}))
        self.pending = pending

    def commit(self, ticket: bytes) -> None:
        """Make the pending state the state: one rename. VaultError if another ticket, or none, is pending."""
        kept = self._expect(ticket).kept
        os.replace(self.directory / "pending.safetensors", self.directory / "state.safetensors")
        self.kept, self.pending = kept, None

    def drop(self, ticket: bytes) -> None:
        """Forget the pending update; the state stays as it was before."""
        self._expect(ticket)
        self._remove("pending.safetensors")
        self.pending = None

    def forget(self) -> None:
        """The codec's state starts anew; personal tensors stay."""
        if self.kept.residual:
            self.kept = Kept(personal=self.kept.personal)
            self._write("state.safetensors", _pack(self.kept, {}, {}))

    def spend(self, history: History) -> None:
        """Keep the privacy history, before what it paid for leaves. Dropping the update takes nothing back."""
        self._write("privacy.json", to_json(history).encode())
        self.history = history

    def _expect(self, ticket: bytes) -> Pending:
        if self.pending is None or self.pending.header.ticket != ticket:
            held = "none" if self.pending is None else self.pending.header.ticket.hex()
            raise VaultError(f"Expected ticket {ticket.hex()} pending in '{self.directory}', got {held}.")
        return self.pending

    def _acquire(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise VaultError(
                f"The vault '{self.directory}' is in use by another process: stop that one, "
                "or give this device a directory of its own."
            ) from error

    def _write_model(self) -> None:
        self._write("model.safetensors", to_bytes(self.model))
        self._unwritten = 0

    def _read_model(self) -> tuple[Tensors, str]:
        if self.identity is None:
            return {}, ""
        spec = self.identity.spec
        model = self._read("model.safetensors", lambda data: ordered(from_bytes(data), spec))
        return ({}, "") if model is None else (model, content_hash(model))

    def _read(self, name: str, parse: Any) -> Any:
        """What ``parse`` makes of a file; None where there is none. Raises VaultError."""
        path = self.directory / name
        try:
            return parse(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise VaultError(f"Cannot read '{path}': {error.strerror}.") from error
        except (SpecError, PrivacyError, ParseError, ValueError, TypeError, KeyError) as error:
            raise VaultError(f"'{path}' is damaged ({error}). Delete it to go on; {_LOSES[name]}.") from error

    def _write(self, name: str, data: bytes) -> None:
        path, beside = self.directory / name, self.directory / f"{name}.new"
        try:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(beside, path)
            self._sync_directory()
        except OSError as error:
            raise VaultError(f"Cannot write '{path}': {error.strerror}.") from error

    def _remove(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)
        self._sync_directory()

    def _sync_directory(self) -> None:
        if self._durable:
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _identity(data: bytes) -> Identity:
    row = json.loads(data)
    return Identity(**{**row, "spec": Spec.from_json(row["spec"])})


def _pack(kept: Kept, about: Mapping[str, Any], more: Tensors) -> bytes:
    """A state as safetensors. Names go into ``about``, in order, since safetensors sorts them."""
    parts = {"residual": kept.residual, "personal": kept.personal}
    text = json.dumps({**about, "codec": kept.codec, **{key: list(part) for key, part in parts.items()}})
    tensors: dict[str, Array] = {"about": np.frombuffer(text.encode(), np.uint8), **more}
    tensors |= {f"{key}/{name}": array for key, part in parts.items() for name, array in part.items()}
    return to_bytes(tensors)


def _unpack(data: bytes) -> tuple[Kept, dict[str, Any], dict[str, Array]]:
    tensors = from_bytes(data)
    about = json.loads(tensors.pop("about").tobytes())
    parts = {key: {name: tensors[f"{key}/{name}"] for name in about[key]} for key in ("residual", "personal")}
    return Kept(about["codec"], parts["residual"], parts["personal"]), about, tensors


def _pending(data: bytes) -> Pending:
    kept, about, tensors = _unpack(data)
    header, payload = ParseDict(about["push"], pb.PushHeader()), tensors["payload"].tobytes()
    if len(payload) != header.size or checksum(payload) != header.checksum:
        raise ValueError("its payload does not have the checksum it was written with")
    return Pending(header, payload, kept)

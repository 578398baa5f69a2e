from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedpress.client.vault import Identity, Kept, Pending, Vault
from fedpress.errors import VaultError
from fedpress.params import Array, Spec, TensorSpec, content_hash, from_bytes, ordered
from fedpress.privacy.accounting import Steps
from fedpress.protos import fleet_pb2 as pb
from fedpress.protos.names import checksum

SPEC = Spec((TensorSpec("z", (2, 3)), TensorSpec("a", (4,)), TensorSpec("scalar", ())))
IDENTITY = Identity("id", "key", "host", "run", SPEC)


def filled(value: float, spec: Spec = SPEC) -> dict[str, Array]:
    return {t.name: np.full(t.shape, value, np.float32) for t in spec}


def same(one: object, other: object) -> bool:
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    return list(one) == list(other) and all(np.array_equal(one[n], other[n]) for n in one)


def pending(value: float, ticket: bytes = b"t", payload: bytes = b"payload") -> Pending:
    report = pb.Report(examples=3, loss=0.1, accuracy=0.75)
    header = pb.PushHeader(ticket=ticket, base=b"m", size=len(payload), checksum=checksum(payload), report=report)
    return Pending(header, payload, Kept("ef+topk:0.01+int8", filled(value), {"head": np.full(2, value, np.float32)}))


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    with Vault(tmp_path / "device") as made:
        made.enrol(IDENTITY)
        yield made


def reopened(vault: Vault) -> Vault:
    vault.close()
    return Vault(vault.directory)


def test_a_codec_that_starts_anew_leaves_the_personal_and_the_pending(vault: Vault) -> None:
    vault.propose(pending(1))
    vault.commit(b"t")
    vault.propose(pending(2, b"t2"))
    vault.forget()
    with reopened(vault) as again:
        assert again.kept == Kept(personal=again.kept.personal)
        assert same(again.kept.personal, {"head": np.full(2, 1, np.float32)})
        assert again.pending is not None


def test_everything_survives_a_restart(vault: Vault) -> None:
    vault.hold(filled(1), content_hash(filled(1)))
    vault.spend((Steps(1.0, 0.1, 5),))
    vault.propose(pending(1))
    vault.commit(b"t")
    vault.propose(pending(2, b"t2", b""))
    with reopened(vault) as again:
        assert again.identity == IDENTITY
        assert again.model_hash == content_hash(filled(1))
        assert list(again.model) == list(SPEC.names), "in the spec's order, not sorted"
        assert same(again.kept.residual, filled(1))
        assert again.kept.codec == "ef+topk:0.01+int8"
        assert again.history == (Steps(1.0, 0.1, 5),)
        assert again.pending is not None
        assert again.pending.header == pending(2, b"t2", b"").header
        assert again.pending.payload == b""
        assert same(again.pending.kept.residual, filled(2))


def test_a_killed_device_finds_a_model_it_held_shortly_before(vault: Vault) -> None:
    found = []
    for version in range(1, 25):
        vault.hold(filled(version), content_hash(filled(version)))
        on_disk = ordered(from_bytes((vault.directory / "model.safetensors").read_bytes()), SPEC)
        found.append(version - int(on_disk["a"][0]))
    assert found[0] == 0, "the first one is written at once: it was a full download"
    assert max(found) < 10
    with reopened(vault) as again:
        assert again.model_hash == content_hash(filled(24))


def test_dropping_keeps_the_old_state(vault: Vault) -> None:
    vault.propose(pending(1))
    vault.commit(b"t")
    vault.propose(pending(2, b"t2"))
    vault.drop(b"t2")
    with reopened(vault) as again:
        assert again.pending is None
        assert same(again.kept.residual, filled(1))


def test_only_the_pending_ticket_is_committed_or_dropped(vault: Vault) -> None:
    with pytest.raises(VaultError, match="got none"):
        vault.commit(b"t")
    vault.propose(pending(1))
    for settle in (vault.commit, vault.drop):
        with pytest.raises(VaultError, match="Expected ticket 6f pending"):
            settle(b"o")


def test_what_a_rule_keeps_in_groups_is_the_runs(vault: Vault) -> None:
    kept = Kept("raw", {}, {"head": np.ones(2, np.float32), "control:w": np.ones(3, np.float32)})
    vault.propose(Pending(pending(1).header, b"payload", kept))
    vault.commit(b"t")
    vault.enrol(IDENTITY)
    assert list(vault.kept.personal) == ["head", "control:w"]
    vault.enrol(Identity("id", "key", "host", "other", SPEC))
    with reopened(vault) as again:
        assert list(vault.kept.personal) == list(again.kept.personal) == ["head"]


@pytest.mark.parametrize("change", ["run", "spec"])
def test_another_run_or_spec_resets_what_is_the_runs_and_keeps_what_is_the_devices(vault: Vault, change: str) -> None:
    vault.hold(filled(1), content_hash(filled(1)))
    vault.spend((Steps(1.0, 0.1, 5),))
    vault.propose(pending(1))
    vault.commit(b"t")
    vault.propose(pending(2))
    spec = Spec(SPEC.tensors[:2]) if change == "spec" else SPEC
    other = Identity("id2", "key2", "host", "other" if change == "run" else "run", spec)
    vault.enrol(other)
    with reopened(vault) as again:
        for made in (vault, again):
            assert made.identity == other
            assert (made.model_hash, made.pending) == ("", None)
            assert not made.kept.residual
            assert same(made.kept.personal, {"head": np.full(2, 1, np.float32)})
            assert made.history == (Steps(1.0, 0.1, 5),)


def test_enrolling_again_in_the_same_run_resets_nothing(vault: Vault) -> None:
    vault.hold(filled(1), content_hash(filled(1)))
    vault.propose(pending(1))
    vault.enrol(Identity("id2", "key2", "elsewhere", "run", SPEC))
    assert vault.pending is not None
    assert vault.model_hash


def test_two_processes_cannot_use_one_vault(vault: Vault) -> None:
    code = f"from pathlib import Path; from fedpress.client.vault import Vault; Vault(Path({str(vault.directory)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"VaultError: The vault '{vault.directory}' is in use by another process" in done.stderr


def test_only_the_owner_can_read_it(vault: Vault) -> None:
    vault.propose(pending(1))
    for path in vault.directory.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    assert "key" not in repr(vault.identity), "nor does a log tell the key"


@pytest.mark.parametrize("name", ["identity.json", "model", "state", "pending", "privacy.json"])
@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, None])
def test_a_damaged_file_is_named_with_its_remedy(vault: Vault, name: str, damage: bytes | None) -> None:
    vault.hold(filled(1), content_hash(filled(1)))
    vault.spend((Steps(1.0, 0.1, 5),))
    vault.propose(pending(1))
    vault.commit(b"t")
    vault.propose(pending(2))
    path = vault.directory / (name if "." in name else f"{name}.safetensors")
    path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
    vault.close()
    with pytest.raises(VaultError, match=rf"{path.name}' is damaged .* Delete it to go on; "):
        Vault(vault.directory)
    path.unlink()
    Vault(vault.directory).close()  # the remedy helps, and the lock was let go


def test_a_flipped_bit_in_a_pending_payload_is_found(vault: Vault) -> None:
    vault.propose(pending(1, payload=b"x" * 64))
    path = vault.directory / "pending.safetensors"
    path.write_bytes(path.read_bytes().replace(b"x" * 64, b"x" * 63 + b"y"))
    vault.close()
    with pytest.raises(VaultError, match="checksum"):
        Vault(vault.directory)


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaultError, match="Cannot use"):
        Vault(tmp_path / "file")


#: Runs two rounds in a child that is killed (SIGKILL) at its k-th operation on the file system, for every k there is,
#: and prints what a new process then finds: the committed value, how many values it is a mix of, and what is pending.
KILLED = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    sys.path.insert(0, {here!r})
    import test_vault as t
    from fedpress.client.vault import Vault

    def rounds(directory):
        with Vault(directory, durable=False) as vault:
            for value in (1, 2):
                vault.hold(t.filled(value), t.content_hash(t.filled(value)))
                vault.propose(t.pending(value, b"t%d" % value, bytes([value]) * 9))
                vault.commit(b"t%d" % value)

    def die_at(k):
        left = [k]
        def hook(event, args):
            if event in ("open", "os.rename", "os.remove"):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)

    for k in range(1000):
        directory = Path({base!r}) / str(k)
        with Vault(directory, durable=False) as vault:
            vault.enrol(t.IDENTITY)
        child = os.fork()
        if child == 0:
            die_at(k)
            rounds(directory)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        with Vault(directory) as vault:
            values = {{float(a) for part in (vault.kept.residual, vault.kept.personal) for x in part.values()
                       for a in np.ravel(x)}}
            model = {{float(a) for x in vault.model.values() for a in np.ravel(x)}}
            update = vault.pending
            print(max(values, default=0.0), len(values), max(model, default=0.0), len(model),
                  update.payload[0] if update else 0, update.header.ticket.decode() if update else "-")
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
"""


def test_killed_at_any_instant_the_state_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    code = textwrap.dedent(KILLED).format(here=str(Path(__file__).parent), base=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) > 12, "every open and rename of two rounds was a place to die"
    seen = []
    for value, mixed, model, model_mixed, payload, ticket in rows:
        assert int(mixed) <= 1, "never a mix of two rounds"
        assert int(model_mixed) <= 1
        committed = int(float(value))
        if ticket == "-":
            assert int(payload) == 0
        else:
            assert ticket == f"t{payload}" == f"t{committed + 1}", (
                "what is pending is the round after the committed one"
            )
        seen.append((committed, int(float(model)), int(payload)))
    assert seen == sorted(seen, key=lambda s: (max(s), s[0])), "time only goes forward"
    assert {s[0] for s in seen} == {0, 1, 2}
    assert {s[2] for s in seen} == {0, 1, 2}

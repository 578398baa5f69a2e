"""Whole runs on real digits: the engines agree, restarts change nothing, every way in works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpress.commands.words import read_plan
from fedpress.errors import FedpressError
from fedpress.params import from_bytes
from fedpress.plan import Plan, load
from fedpress.server.events import Event, RoundClosed
from fedpress.simulations.engines import simulate
from fedpress.simulations.records import read_rounds
from fedpress.simulations.results import Result, Summary

REPO = Path(__file__).resolve().parent.parent
CLI = [sys.executable, "-m", "fedpress.cli"]


def plan(out: Path, *overrides: str) -> Plan:
    return load(None, [f"run.out={out}", "run.rounds=3", "clients.count=3", "server.long_poll_s=5", *overrides])


def run(out: Path, *overrides: str, resume: bool = False) -> Result:
    return simulate(plan(out, *overrides), resume=resume)


def fedpress(*words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=120, cwd=REPO, **settings)  # type: ignore[call-overload, no-any-return]


def test_inline_and_processes_give_the_same_model_and_the_same_bytes(tmp_path: Path) -> None:
    inline = run(tmp_path / "a", "engine.name=inline").summary
    again = run(tmp_path / "b", "engine.name=inline").summary
    real = run(tmp_path / "c", "engine.name=processes").summary
    assert inline.model == again.model == real.model
    for key in ("accuracy", "bytes_up", "bytes_down", "bytes_up_uncompressed", "bytes_down_uncompressed"):
        assert getattr(inline, key) == getattr(again, key) == getattr(real, key), key
    assert real.wire_up > real.bytes_up
    assert (inline.wire_up, inline.wire_down) == pytest.approx((real.wire_up, real.wire_down), rel=0.1)


def test_a_run_that_was_cut_ends_in_the_same_model(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", "engine.name=inline", "run.rounds=4")

    class Cut(Exception):
        pass

    def cut(event: Event) -> None:
        if isinstance(event, RoundClosed) and event.record["round"] == 2:
            raise Cut

    with pytest.raises(Cut):
        simulate(plan(tmp_path / "cut", "engine.name=inline", "run.rounds=4"), cut)
    resumed = run(tmp_path / "cut", "engine.name=inline", "run.rounds=4", resume=True)
    assert resumed.summary.model == whole.summary.model
    assert [r.round for r in resumed.rounds] == [r.round for r in whole.rounds]
    assert resumed.summary.bytes_up == whole.summary.bytes_up


def test_compression_pays_and_costs_little_accuracy(tmp_path: Path) -> None:
    result = run(
        tmp_path, "engine.name=inline", "engine.baseline=true", "run.rounds=25", "train.epochs=5", "clients.count=5"
    )
    s = result.summary
    assert s.bytes_up_uncompressed > 20 * s.bytes_up
    assert s.bytes_down_uncompressed > 3.5 * s.bytes_down
    assert s.accuracy is not None
    assert s.baseline_accuracy is not None
    assert s.baseline_accuracy > 0.85
    assert s.accuracy > s.baseline_accuracy - 0.03


def test_fedper_keeps_the_head_on_the_device(tmp_path: Path) -> None:
    overrides = ("engine.name=inline", "strategy.name=fedper", 'strategy.personal=["head.*"]', "train.epochs=3")
    result = run(tmp_path, *overrides)
    shared = from_bytes((result.run_dir / "checkpoints" / "last.safetensors").read_bytes())
    assert shared
    assert not any(name.startswith("head.") for name in shared)
    heads = []
    for vault in sorted((result.run_dir / "clients").iterdir()):
        kept = from_bytes((vault / "state.safetensors").read_bytes())
        (head,) = (a for n, a in kept.items() if n.endswith("head.weight") and "residual" not in n)
        heads.append(head)
    assert not np.array_equal(heads[0], heads[1])  # each device's own
    assert result.summary.personal_accuracy is not None


def test_local_privacy_spends_and_says_so(tmp_path: Path) -> None:
    result = run(tmp_path, "engine.name=inline", "privacy.mode=local", "privacy.delta=0.001", "run.rounds=2")
    epsilons = [
        [c.epsilon for c in r.clients.values()] for r in result.rounds if r.updates and r.train_loss is not None
    ]
    assert result.summary.epsilon is not None
    assert 0 < max(epsilons[0]) < max(epsilons[1]) == pytest.approx(result.summary.epsilon)


def test_a_users_own_task_runs_on_server_and_clients_over_tls(tmp_path: Path, devices: Any, port_of: Any) -> None:
    make = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost"
    subprocess.run(
        [*make.split(), "-addext", "subjectAltName=DNS:localhost"], cwd=tmp_path, check=True, capture_output=True
    )
    task = str(REPO / "examples" / "wine.py")
    words = [
        task, f"run.out={tmp_path}", "run.rounds=3", "clients.count=2", "run.name=wine", "server.long_poll_s=3",
        f"server.cert={tmp_path / 'cert.pem'}", f"server.key={tmp_path / 'key.pem'}",
    ]  # fmt: skip
    with subprocess.Popen([*CLI, "server", *words, "--linger", "3"], stdout=subprocess.PIPE, text=True) as server:
        try:
            address = f"localhost:{port_of(server)}"
            clients = devices(2, address, words, tmp_path, "--ca", str(tmp_path / "cert.pem"))
            for client in clients:
                output, _ = client.communicate(timeout=90)
                assert client.returncode == 0, output
                assert "the run is finished" in output
            server.communicate(timeout=30)
        finally:
            server.kill()
    summary = Summary.read(tmp_path / "wine")
    assert (summary.rounds, summary.clients) == (3, 2)
    assert (tmp_path / "wine" / "report.html").stat().st_size > 10_000


def test_a_server_killed_in_mid_run_resumes_the_round_and_loses_nothing(
    tmp_path: Path, devices: Any, port_of: Any
) -> None:
    words = [
        "digits",
        f"run.out={tmp_path}",
        "run.rounds=6",
        "clients.count=2",
        "run.name=killed",
        "server.long_poll_s=3",
    ]
    first = subprocess.Popen([*CLI, "server", *words], stdout=subprocess.PIPE, text=True)
    port = port_of(first)
    clients = devices(2, f"127.0.0.1:{port}", words, tmp_path)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith(("round 2/", "round  2/")):
            break
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    first.stdout.close()
    with subprocess.Popen(
        [*CLI, "server", *words, f"server.port={port}", "--linger", "3"], stdout=subprocess.PIPE, text=True
    ) as second:
        for client in clients:
            output, _ = client.communicate(timeout=90)
            assert client.returncode == 0, output
            assert output.count("gone") == 1  # said once, not at every try
        second.communicate(timeout=30)
    rounds = [r for r in read_rounds(tmp_path / "killed") if r.train_loss is not None]
    assert [r.round for r in rounds] == [1, 2, 3, 4, 5, 6]
    assert all(r.updates == 2 for r in rounds)


def test_without_rounds_a_killed_client_costs_its_own_update_and_nothing_else(
    tmp_path: Path, devices: Any, port_of: Any
) -> None:
    words = [
        "digits", f"run.out={tmp_path}", "run.rounds=20", "clients.count=5", "run.name=buffered",
        "server.long_poll_s=3", "cohort.buffer=3", "cohort.deadline_s=5", "train.max_steps=20",
    ]  # fmt: skip
    with subprocess.Popen([*CLI, "server", *words, "--linger", "3"], stdout=subprocess.PIPE, text=True) as server:
        clients = []
        try:
            clients = devices(5, f"127.0.0.1:{port_of(server)}", words, tmp_path)
            first, *others = clients
            assert first.stdout is not None
            for line in first.stdout:
                if "to send" in line:  # trained, and about to push
                    break
            first.kill()
            for client in others:
                output, _ = client.communicate(timeout=90)
                assert client.returncode == 0, output
                assert "the run is finished" in output
            server.communicate(timeout=30)
        finally:
            server.kill()
            for client in clients:
                client.kill()
                client.communicate()
    rounds = [r for r in read_rounds(tmp_path / "buffered") if r.train_loss is not None]
    assert [r.round for r in rounds] == list(range(1, 21))
    assert all(1 <= r.updates <= 3 for r in rounds)  # fewer where nobody else came within the deadline
    assert any(any(r.staleness) for r in rounds)
    assert sum(len(r.clients["c0"].staleness) for r in rounds if "c0" in r.clients) <= 2, "it did not live longer"


def test_ship_makes_a_smaller_model_that_a_client_fetches(tmp_path: Path, port_of: Any) -> None:
    result = run(tmp_path, "engine.name=processes", "run.rounds=12", "train.epochs=5", "ship.epochs=40")
    shipped = fedpress("ship", str(result.run_dir))
    assert shipped.returncode == 0, shipped.stderr
    words = [f"run.out={tmp_path}", "run.rounds=12", "clients.count=3", "server.long_poll_s=5"]
    with subprocess.Popen([*CLI, "server", *words, "--linger", "60"], stdout=subprocess.PIPE, text=True) as server:
        port = port_of(server)
        vault = result.run_dir / "clients" / "client-000"
        fetched = fedpress("fetch", f"127.0.0.1:{port}", "--vault", str(vault), "--to", str(tmp_path / "model.onnx"))
        server.terminate()
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "model.onnx").read_bytes() == (result.run_dir / "release-any.onnx").read_bytes()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["digits", "train.lr=fast"], ["train.lr", "'fast'"]),
        (["digits", "train.lr=-1"], ["greater than 0", "-1 (train.lr)"]),
        (["digits", "train.lrr=0.1"], ["train.lrr", "Did you mean 'lr'"]),
        (["digits", "uplod.codec=int8"], ["uplod", "Did you mean 'upload'"]),
        (["digits", "upload.codec=topq:0.1"], ["upload.codec", "topk"]),
        (["digits", "download.codec=ef+int8"], ["download.codec", "feedback built in"]),
        (["digits", "strategy.name=fedavgg"], ["strategy.name", "Did you mean 'fedavg'"]),
        (["digits", "strategy.name=fedper", 'strategy.personal=["haed.*"]'], ["haed.*", "head.weight"]),
        (["digits", 'strategy.personal=["head.*"]'], ["fedper"]),
        (["digits", "clients.partition=natural"], ["natural"]),
        (["digits", "engine.name=flower"], ["flower"]),
        (["digitz"], ["Did you mean 'digits'"]),
        (["no/such.toml"], ["no/such.toml"]),
        (["digits", "train.trainer=idle", "privacy.mode=local"], ["train.trainer", "'idle'"]),
        (["femnist", "task.data_dir=nowhere", "clients.partition=natural"], ["femnist", "nowhere", "FEDPRESS_DATA"]),
    ],
    ids=str,
)
def test_a_bad_plan_is_refused_by_key_before_anything_starts(
    tmp_path: Path, words: list[str], expected: list[str]
) -> None:
    with pytest.raises(FedpressError) as refusal:
        simulate(read_plan([*words, f"run.out={tmp_path}"]))
    for text in expected:
        assert text in str(refusal.value)
    assert not any(tmp_path.iterdir())


def test_an_error_is_one_line_on_stderr() -> None:
    refused = fedpress("simulate", "digits", "train.lr=fast")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: Expected")
    assert "Traceback" not in refused.stderr


def test_ctrl_c_stops_cleanly_and_the_run_resumes(tmp_path: Path) -> None:
    words = ["digits", f"run.out={tmp_path}", "run.rounds=60", "clients.count=3", "run.name=cut"]
    with subprocess.Popen(
        [*CLI, "simulate", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("round"):
                break
        os.killpg(first.pid, signal.SIGINT)
        try:
            _, complaint = first.communicate(timeout=30)
        finally:
            first.kill()
    assert first.returncode == 130, complaint
    assert "--resume" in complaint
    done = len(read_rounds(tmp_path / "cut"))
    assert done < 60
    again = fedpress("simulate", *words, "run.rounds=" + str(done + 2), "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["rounds"] == done + 2

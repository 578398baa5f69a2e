"""What all tests share: where real data is, and the programs that people start; and no test fails for being slow on a
busy machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

REPO = Path(__file__).resolve().parent.parent
settings.register_profile("fedpress", deadline=None)
settings.load_profile("fedpress")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where real data sets are: $FEDPRESS_DATA, else ``shared/data`` beside the checkout; skips where neither is."""
    place = Path(os.environ.get("FEDPRESS_DATA", REPO.parent / "shared" / "data"))
    if not (place / "fashion-mnist").is_dir():
        pytest.skip("no real data: set FEDPRESS_DATA")
    return place


@pytest.fixture(scope="session")
def devices() -> Callable[..., list[subprocess.Popen[str]]]:
    """``devices(n, "HOST:PORT", words, directory, *more)``: ``fedpress client`` as c0, c1 ... in processes of their
    own, each with its shard of the task and a vault of its own, vault0, vault1 ... in the directory."""

    def start(count: int, address: str, words: Sequence[str], out: Path, *more: str) -> list[subprocess.Popen[str]]:
        return [
            subprocess.Popen(
                [sys.executable, "-m", "fedpress.cli", "client", address, *words, "--name", f"c{i}", "--shard", str(i),
                 "--vault", str(out / f"vault{i}"), *more],
                stdout=subprocess.PIPE, text=True,
            )
            for i in range(count)
        ]  # fmt: skip

    return start


@pytest.fixture(scope="session")
def port_of() -> Callable[[subprocess.Popen[str]], int]:
    """The port that a ``fedpress server``, just started, says it listens on."""

    def read(server: subprocess.Popen[str]) -> int:
        assert server.stdout is not None
        until = time.monotonic() + 60
        while time.monotonic() < until:
            line = server.stdout.readline()
            if "listening on" in line:
                return int(line.split("listening on ")[1].split(" ")[0].rsplit(":", 1)[1])
        raise AssertionError("the server never listened")

    return read

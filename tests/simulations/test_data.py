"""Data sets: found, checked, downloaded from a real server on loopback, and the errors when they are not right."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fedpress.errors import DataError
from fedpress.simulations.catalogue import SETS, DataFile, DataSet
from fedpress.simulations.data import ensure, located, provide, status

RIGHT = b"the right bytes" * 1000


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the standard library's
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up on too long a file is no error here."""


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address where it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with _Server(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _dataset(*mirrors: str) -> DataSet:
    return DataSet("toy", (DataFile("a.bin", len(RIGHT), hashlib.sha256(RIGHT).hexdigest()),), "none", mirrors=mirrors)


def test_the_argument_goes_before_the_environment_before_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPRESS_DATA", "/from/environment")
    assert located(Path("/given")) == Path("/given")
    assert located() == Path("/from/environment")
    monkeypatch.delenv("FEDPRESS_DATA")
    assert located() == Path.home() / ".cache" / "fedpress"


def test_real_files_are_right(data_dir: Path) -> None:
    rows = {row.name: row for row in status(data_dir)}
    assert rows.keys() == SETS.keys()
    assert {row.state for name, row in rows.items() if name != "digits"} == {"present"}
    assert rows["digits"].state == "bundled"
    assert rows["mnist"].nbytes == 11_594_722
    for name in SETS:
        assert ensure(name, data_dir, download=False) == rows[name].path


def test_a_download_is_checked_and_put_in_place(mirror: tuple[Path, str], tmp_path: Path) -> None:
    served, address = mirror
    (served / "a.bin").write_bytes(RIGHT)
    folder = provide("toy", _dataset(f"{address}/not-here", address), tmp_path)
    assert (folder / "a.bin").read_bytes() == RIGHT
    (served / "a.bin").unlink()
    assert provide("toy", _dataset(address), tmp_path) == folder, "what is there is not fetched again"


def test_a_damaged_file_is_fetched_anew(mirror: tuple[Path, str], tmp_path: Path) -> None:
    served, address = mirror
    (served / "a.bin").write_bytes(RIGHT)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.bin").write_bytes(RIGHT[:-1])
    assert (provide("toy", _dataset(address), tmp_path) / "a.bin").read_bytes() == RIGHT


@pytest.mark.parametrize("sent", [b"", b"wrong", RIGHT[:-1], RIGHT + b"!", RIGHT * 1000])
def test_a_wrong_download_is_refused_and_leaves_nothing(sent: bytes, mirror: tuple[Path, str], tmp_path: Path) -> None:
    served, address = mirror
    (served / "a.bin").write_bytes(sent)
    expected = hashlib.sha256(RIGHT).hexdigest()
    with pytest.raises(DataError, match=rf"{address}/a.bin sent another file: expected sha256 {expected}, got"):
        provide("toy", _dataset(address), tmp_path)
    assert list((tmp_path / "toy").iterdir()) == []


def test_a_mirror_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"Data set 'toy' cannot be downloaded: no a.bin from http://127.0.0.1:1/a.bin: .*"
    ):
        provide("toy", _dataset("http://127.0.0.1:1"), tmp_path)


def test_a_folder_that_cannot_be_made_is_a_data_error(mirror: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "toy").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="toy"):
        provide("toy", _dataset(mirror[1]), tmp_path)


def test_what_is_missing_or_damaged_is_said_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError) as missing:
        ensure("mnist", tmp_path, download=False)
    for part in ("train-images-idx3-ubyte.gz' is missing", "`fedpress data mnist`", "FEDPRESS_DATA", str(tmp_path)):
        assert part in str(missing.value)
    (tmp_path / "femnist").mkdir()
    (tmp_path / "femnist" / "femnist_105writers.npz").write_bytes(b"not it")
    with pytest.raises(DataError) as damaged:
        ensure("femnist", tmp_path)
    want, got = SETS["femnist"].files[0].sha256, hashlib.sha256(b"not it").hexdigest()
    assert f"is damaged: expected sha256 {want}, got {got}. No public copy" in str(damaged.value)
    states = {row.name: row.state for row in status(tmp_path)}
    assert (states["mnist"], states["femnist"]) == ("missing", "damaged")


def test_an_unknown_data_set_names_the_closest() -> None:
    with pytest.raises(DataError, match=r"Did you mean 'femnist'\?"):
        ensure("femmist")

"""Where data sets are, whether they are whole, and how one is got.

A data set is a folder of files in a data directory: the one given, else ``$FEDPRESS_DATA``, else ``~/.cache/fedpress``.
Every file is known by its SHA-256 and checked each time it is used (about 1 ms per MB), so that damage shows as a
``DataError`` and not as a puzzling accuracy. A download goes to a temporary file beside the target and is renamed once
it has proved right: several clients may start at once on an empty directory, and a broken download leaves nothing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from fedpress.errors import DataError, closest
from fedpress.simulations.catalogue import SETS, DataFile, DataSet

#: Seconds without a byte until a download is given up.
PATIENCE: Final = 20.0
_CHUNK: Final = 1 << 20


class Status(NamedTuple):
    """One row of ``fedpress data``. ``downloads``: a public copy is known. ``path``: where it is looked for."""

    name: str
    state: Literal["bundled", "present", "missing", "damaged"]
    nbytes: int
    licence: str
    clients: str
    downloads: bool
    path: Path


def located(directory: Path | None = None) -> Path:
    """The data directory: the one given, else ``$FEDPRESS_DATA``, else ``~/.cache/fedpress``."""
    return Path(directory or os.environ.get("FEDPRESS_DATA") or "~/.cache/fedpress").expanduser()


def ensure(name: str, directory: Path | None = None, download: bool = True) -> Path:
    """The folder of data set ``name``, all files there and right; fetches what is not. Raises DataError."""
    return provide(name, _known(name), located(directory), download)


def provide(name: str, dataset: DataSet, directory: Path, download: bool = True) -> Path:
    """``ensure`` for a data set that is not in the table: a user's own. Raises DataError."""
    folder = directory / dataset.folder
    faults = dict(_faults(dataset, folder))
    if faults and download and dataset.mirrors:
        for file in faults:
            _download(name, dataset, file, folder)
    elif faults:
        get = f"`fedpress data {name}` downloads it" if dataset.mirrors else "No public copy in this format is known"
        raise DataError(
            f"Data set '{name}' is not complete: {'; '.join(faults.values())}. {get}. {_by_hand(dataset, folder)}"
        )
    return folder


def status(directory: Path | None = None) -> list[Status]:
    """How every known data set stands in a directory."""
    root, rows = located(directory), []
    for name, dataset in SETS.items():
        folder = root / dataset.folder
        faults = dict(_faults(dataset, folder))
        missing = any(not (folder / file.name).exists() for file in faults)
        state: Literal["bundled", "present", "missing", "damaged"]
        state = "missing" if missing else "damaged" if faults else "present" if dataset.files else "bundled"
        row = Status(name, state, dataset.nbytes, dataset.licence, dataset.clients, bool(dataset.mirrors), folder)
        rows.append(row)
    return rows


def _known(name: str) -> DataSet:
    if name not in SETS:
        raise DataError(f"Expected a known data set, got '{name}'. {closest(name, SETS)}")
    return SETS[name]


def _faults(dataset: DataSet, folder: Path) -> Iterator[tuple[DataFile, str]]:
    """What is wrong, file by file; nothing if all is well."""
    for file in dataset.files:
        path = folder / file.name
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError:
            yield file, f"'{path}' is missing (sha256 {file.sha256})"
        except OSError as error:
            yield file, f"'{path}' cannot be read ({error.strerror})"
        else:
            if found != file.sha256:
                yield file, f"'{path}' is damaged: expected sha256 {file.sha256}, got {found}"


def _download(name: str, dataset: DataSet, file: DataFile, folder: Path) -> None:
    """Fetch one file from the first mirror that has it right. Raises DataError telling what each answered."""
    answers = []
    for mirror in dataset.mirrors:
        url = f"{mirror}/{file.name}"
        try:
            found = _fetch(url, file, folder)
        except (OSError, HTTPException) as error:  # no network, no such address, no room, no permission
            answers.append(f"{url}: {error}")
            continue
        if found == file.sha256:
            return
        answers.append(f"{url} sent another file: expected sha256 {file.sha256}, got {found}")
    raise DataError(
        f"Data set '{name}' cannot be downloaded: no {file.name} from {'; '.join(answers)}. {_by_hand(dataset, folder)}"
    )


def _by_hand(dataset: DataSet, folder: Path) -> str:
    return (
        f"If you have the files, put them in '{folder}', or name the directory that has '{dataset.folder}' in it "
        "with FEDPRESS_DATA or task.data_dir."
    )


def _fetch(url: str, file: DataFile, folder: Path) -> str:
    """The SHA-256 of what ``url`` sends; put in place only if it is the file's."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=folder, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as target, urllib.request.urlopen(url, timeout=PATIENCE) as reply:
            found = _copy(reply, target, file.nbytes)
        if found == file.sha256:
            os.chmod(partial, 0o644)
            os.replace(partial, folder / file.name)
    finally:
        Path(partial).unlink(missing_ok=True)
    return found


def _copy(source: IO[bytes], target: IO[bytes], limit: int) -> str:
    """Copy at most ``limit`` bytes and one more, so that a longer file differs; the SHA-256 of what was copied."""
    digest, left = hashlib.sha256(), limit + 1
    while left and (chunk := source.read(min(_CHUNK, left))):
        digest.update(chunk)
        target.write(chunk)
        left -= len(chunk)
    return digest.hexdigest()

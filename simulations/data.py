"""Where data sets are, what each consists of, and how one is got.

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from fedpress.errors import DataError, closest

#: Seconds without a byte until a download is given up.
PATIENCE: Final = 20.0
_CHUNK: Final = 1 << 20


class DataFile(NamedTuple):
    """One file: its name, its length in bytes, its SHA-256 in hex."""

    name: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """What a data set consists of. ``mirrors`` are addresses that a file's name is appended to, tried in turn."""

    folder: str
    files: tuple[DataFile, ...]
    licence: str
    clients: str = "none"
    mirrors: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.nbytes for file in self.files)


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


#: What each built-in task reads, by the task's name.
SETS: Final[Mapping[str, DataSet]] = {
    "digits": DataSet(
        folder="digits",
        files=(),
        licence="CC BY 4.0; bundled with scikit-learn",
    ),
    "mnist": DataSet(
        folder="mnist",
        files=(
            DataFile(
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            DataFile(
                "train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            DataFile(
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            DataFile(
                "t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
            ),
        ),
        licence="CC BY-SA 3.0",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
    ),
    "fashion-mnist": DataSet(
        folder="fashion-mnist",
        files=(
            DataFile(
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            DataFile(
                "train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
            ),
            DataFile(
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            DataFile(
                "t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
            ),
        ),
        licence="MIT",
        mirrors=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com",
            "https://github.com/zalandoresearch/fashion-mnist/raw/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion",
        ),
    ),
    "femnist": DataSet(
        folder="femnist",
        files=(
            DataFile(
                "femnist_105writers.npz", 1_864_666, "f58ab014434231d182433d2286f0f21fc1759961a1efa6c7112692d5ca7c9dd4"
            ),
        ),
        licence="public (NIST SD19, LEAF)",
        clients="105 writers",
    ),
    "har": DataSet(
        folder="uci-har",
        files=(
            DataFile(
                "uci_har_features.npz", 13_764_578, "5b93c5801c7243dde8d1a533ed7da59dd52e57606abebe6f3eaf60bc8fcd0232"
            ),
        ),
        licence="non-commercial, cite",
        clients="30 people",
    ),
    "har-inertial": DataSet(
        folder="uci-har",
        files=(
            DataFile(
                "uci_har_inertial.npz", 12_005_118, "8cacf9d7f9fd0e7bd892cce24557f17a0523880b63da1f7a4a7d99d8c33e19f6"
            ),
        ),
        licence="non-commercial, cite",
        clients="30 people",
    ),
    "shakespeare": DataSet(
        folder="tiny-shakespeare",
        files=(DataFile("input.txt", 1_115_394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),),
        licence="public domain",
        clients="141 speaking roles",
        mirrors=(
            "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare",
        ),
    ),
    "heart": DataSet(
        folder="heart-disease",
        files=(
            DataFile(
                "processed.cleveland.data", 18_461, "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8"
            ),
            DataFile(
                "processed.hungarian.data", 10_263, "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796"
            ),
            DataFile(
                "processed.switzerland.data", 4_109, "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314"
            ),
            DataFile("processed.va.data", 6_737, "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f"),
        ),
        licence="CC BY 4.0, cite",
        clients="4 hospitals",
        mirrors=("https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease",),
    ),
}

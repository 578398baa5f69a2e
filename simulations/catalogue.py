"""What each data set consists of: its files with their checksums, where public copies are, and under which licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple


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


#: What each built-in task reads, by the task's name.
SETS: Final[Mapping[str, DataSet]] = {
    "digits": DataSet(
        folder="digits",
        files=(),
        licence="bundled with scikit-learn",
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

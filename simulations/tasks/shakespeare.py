"""The next character, by speaking role, of Shakespeare's plays as Karpathy's ``input.txt`` has them.

The problem is McMahan et al.'s (2017). A role is everything said under one name, so Gloucester of three plays is one
client; the 141 roles with 1000 characters or more take part. The first 90 % of each role is to learn from, the last
10 % is for the test, both cut into windows of 80 characters without overlap. The target of a position is the character
after it; a last partial window is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedpress.simulations.data import ensure
from fedpress.task import Data, Split

#: All characters of the text; a character's class is its place here.
ALPHABET: Final = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
WINDOW: Final = 80
_SHORTEST: Final = 1000


def data(directory: Path) -> Data:
    """x int64[n, 80] in 0..64, y int64[n, 80] the same one character on, owner: the role. Raises DataError."""
    text = (ensure("shakespeare", directory) / "input.txt").read_text(encoding="ascii")
    said = {role: words for role, words in roles(text).items() if len(words) >= _SHORTEST}
    cut = {role: len(words) * 9 // 10 for role, words in said.items()}
    return Data(
        train=_windows([words[: cut[role]] for role, words in said.items()]),
        test=_windows([words[cut[role] :] for role, words in said.items()]),
        owners=tuple(said),
    )


def roles(text: str) -> Mapping[str, str]:
    """Every role's speeches, a newline after each, in order of appearance. A speech is a block below ``NAME:``."""
    said: dict[str, list[str]] = {}
    for block in re.split(r"\n\n+", text.strip("\n")):
        name, _, speech = block.partition("\n")
        said.setdefault(name.removesuffix(":"), []).append(f"{speech}\n" if speech else "")
    return {role: "".join(speeches) for role, speeches in said.items()}


def model() -> Any:
    """Five causal gated convolutions that see 63 characters: 132 k parameters.

    Not the usual GRU or LSTM: Opacus has no per-example gradients for torch's own, and this learns as well, faster.
    """
    from fedpress.simulations.tasks.networks import next_symbol

    return next_symbol(len(ALPHABET), channels=64, layers=5)


def student() -> Any:
    """The same, thinner: 35 k parameters."""
    from fedpress.simulations.tasks.networks import next_symbol

    return next_symbol(len(ALPHABET), channels=32, layers=5)


def _windows(texts: list[str]) -> Split:
    table = np.full(128, -1, np.int64)
    table[[ord(character) for character in ALPHABET]] = np.arange(len(ALPHABET))
    codes = [table[np.frombuffer(text.encode("ascii"), np.uint8)] for text in texts]
    counts = [(len(code) - 1) // WINDOW for code in codes]
    x = [code[: n * WINDOW].reshape(n, WINDOW) for code, n in zip(codes, counts, strict=True)]
    y = [code[1 : n * WINDOW + 1].reshape(n, WINDOW) for code, n in zip(codes, counts, strict=True)]
    return Split(np.concatenate(x), np.concatenate(y), np.repeat(np.arange(len(texts)), counts))

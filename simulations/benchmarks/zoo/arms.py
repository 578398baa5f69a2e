"""What the zoo's runs differ in: uncompressed, the default codecs, and candidates given on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from fedpress.errors import PlanError, closest

RAW: Final = "raw"
DEFAULT: Final = "default"
#: Keys of the plan, by name. All are compared with the first.
ARMS: Final[Mapping[str, Sequence[str]]] = {
    RAW: ("upload.codec=raw", "download.codec=raw", "download.mode=full"),
    DEFAULT: (),
}


def parse(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The arms that ``texts`` name, by name, with ``raw`` as the first; of none, ``raw`` and ``default``.

    A text is the name of a known arm, or ``NAME:KEY=VALUE;KEY=VALUE``, a new one. Keys are divided by semicolons or
    blanks, which no codec has. Raises PlanError.
    """
    found = {RAW: tuple(ARMS[RAW])}
    for text in texts or (DEFAULT,):
        name, colon, keys = text.partition(":")
        if not colon:
            if name not in ARMS:
                known = f"{closest(name, ARMS)} A new one is NAME:KEY=VALUE;KEY=VALUE"
                raise PlanError(f"Unknown arm '{name}'. {known} (--arm).")
            found[name] = tuple(ARMS[name])
            continue
        if not re.fullmatch(r"[\w.-]+", name) or name in ARMS:
            raise PlanError(
                f"Expected a new arm's name of letters, digits and dashes, other than {' and '.join(ARMS)}, got "
                f"'{name}' (--arm)."
            )
        found[name] = tuple(re.split(r"[;\s]+", keys.strip(" ;")))
    return found

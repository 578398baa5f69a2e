"""Print what fedpress needs with some extras, one requirement a line: the image's layer that changes seldom.

``python requirements.py pyproject.toml torch,tasks``; pip has no way yet to install a project's needs without the
project. Extras that name others (``fedpress[torch,tasks]``) are followed. An unknown extra is a KeyError.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def requirements(project: Mapping[str, Any], extras: str) -> Iterator[str]:
    """The requirements of ``[project]``, then those of the comma-separated ``extras``."""
    yield from project["dependencies"]
    for extra in filter(None, extras.split(",")):
        yield from _extra(project["optional-dependencies"], extra)


def _extra(table: Mapping[str, list[str]], extra: str) -> Iterator[str]:
    for requirement in table[extra]:
        own = re.fullmatch(r"fedpress\[([\w,-]+)\]", requirement)
        if own is None:
            yield requirement
            continue
        for other in own[1].split(","):
            yield from _extra(table, other)


if __name__ == "__main__":
    path, extras = sys.argv[1:]
    project = tomllib.loads(Path(path).read_text(encoding="utf-8"))["project"]
    sys.stdout.writelines(f"{line}\n" for line in requirements(project, extras))

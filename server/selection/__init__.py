"""Who is invited to a round: one file per rule, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from fedpress.server.selection.uniform import uniform

#: ``select(names, count, round, drawn_before)``: ``count`` of the sorted ``names``. ``drawn_before`` counts the clients
#: already invited to this round, so that replacements are a fresh draw.
Select: TypeAlias = Callable[[Sequence[str], int, int, int], list[str]]

SELECTIONS: Final[Mapping[str, Callable[[int], Select]]] = {"uniform": uniform}

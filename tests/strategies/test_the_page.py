"""docs/strategies.md says what there is: the code it shows, and every strategy and rule by name."""

from __future__ import annotations

import re
from pathlib import Path

from fedpress.client.rules import RULES
from fedpress.server.strategies import STRATEGIES

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "strategies.md").read_text(encoding="utf-8")


def test_fedprox_is_shown_as_it_is() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    files = [REPO / "server" / "strategies" / "fedprox.py", REPO / "client" / "rules" / "fedprox.py"]
    sources = [file.read_text(encoding="utf-8") for file in files]
    assert len(blocks) == len(sources)
    assert all(block in source for block, source in zip(blocks, sources, strict=True))
    assert sum(source.count("\n") for source in sources) < 60


def test_all_are_named() -> None:
    named = set(re.findall(r"`([a-z-]+)`", PAGE))
    assert set(STRATEGIES) <= named
    assert {name.removesuffix("-hf") for name in RULES} <= named | {"per-fedavg"}

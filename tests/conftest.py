"""What all tests share: where real data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where real data sets are: $FEDPRESS_DATA, else ``shared/data`` beside the checkout; skips where neither is."""
    place = Path(os.environ.get("FEDPRESS_DATA", REPO.parent / "shared" / "data"))
    if not (place / "fashion-mnist").is_dir():
        pytest.skip("no real data: set FEDPRESS_DATA")
    return place

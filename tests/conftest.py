"""What all tests share: where real data is; and no test fails for being slow on a busy machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

REPO = Path(__file__).resolve().parent.parent
settings.register_profile("fedpress", deadline=None)
settings.load_profile("fedpress")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where real data sets are: $FEDPRESS_DATA, else ``shared/data`` beside the checkout; skips where neither is."""
    place = Path(os.environ.get("FEDPRESS_DATA", REPO.parent / "shared" / "data"))
    if not (place / "fashion-mnist").is_dir():
        pytest.skip("no real data: set FEDPRESS_DATA")
    return place

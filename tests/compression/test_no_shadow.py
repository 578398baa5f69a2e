"""Python 3.14 has a package ``compression`` of its own: the folder of that name here must never stand before it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_folder_is_no_regular_package() -> None:
    assert (ROOT / "compression" / "codec.py").is_file()
    assert not (ROOT / "compression" / "__init__.py").exists()


def test_a_regular_package_later_on_the_path_wins(tmp_path: Path) -> None:
    """As the standard library's does when the repository's root is first on ``sys.path``."""
    package = tmp_path / "compression"
    package.mkdir()
    (package / "__init__.py").write_text("WHOSE = 'the standard library'\n")
    path = [str(ROOT), str(tmp_path)]
    code = f"import sys; sys.path[:0] = {path!r}; import compression, gzip, lzma; print(compression.WHOSE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "the standard library", done.stderr

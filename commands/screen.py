"""Where the verbs print: what was asked for, wide tables, and complaints."""

from __future__ import annotations

from typing import Final

from rich.console import Console

console: Final = Console()
complaints: Final = Console(stderr=True)
wide: Final = console if console.is_terminal else Console(width=140)

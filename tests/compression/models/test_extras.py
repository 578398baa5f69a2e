from __future__ import annotations

import importlib
import sys

import pytest

from fedpress.errors import MissingExtra


@pytest.mark.parametrize(
    ("module", "absent", "extra"),
    [
        ("distil", "torch", "torch"),
        ("export", "onnxscript", "ship"),
        ("quantise", "onnxruntime", "ship"),
        ("check", "onnxruntime", "ship"),
        ("ship", "torch", "torch"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    module: str, absent: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"fedpress.compression.models.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'fedpress\[{extra}\]'"):
        importlib.import_module(name)

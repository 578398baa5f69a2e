"""The hot loops: compiled (``kernels/*.c``) where the installation could compile them, else their twins in NumPy.

Both give the same bytes. ``FEDPRESS_KERNELS=off`` takes the twins in any case.
"""

from __future__ import annotations

import importlib
import os
import warnings
from types import ModuleType


def _found() -> ModuleType | None:
    if os.environ.get("FEDPRESS_KERNELS") == "off":
        return None
    try:
        return importlib.import_module("fedpress.compression._kernels")
    except ModuleNotFoundError:
        return None


compiled = _found()
if compiled is None:
    from fedpress.compression import twin

    warnings.warn(
        "fedpress runs without its compiled kernels: the same bytes, but slow. Install a C compiler and reinstall.",
        RuntimeWarning,
        stacklevel=2,
    )
    kernels: ModuleType = twin
else:
    kernels = compiled

"""nncodec's side of ``make rivals``: what the ISO's neural-network coder makes of one update, as a black box.

    nncodec_side.py UPDATE.npz NMSE...      prints JSON: per setting and NMSE wanted, the qp that comes nearest to it

It runs in an environment of its own, of nncodec and NumPy alone: of what nncodec imports besides (torch, torchvision,
TensorFlow), coding arrays needs nothing. Errors are those of what nncodec decodes from its own bitstream.

Settings are the package's defaults (uniform quantisation with dependent quantisation, parameter optimisation, row
skipping, qp density 2), but for what would count against it here: biases get the same qp as weights (-75 would cost
0.02 to 0.05 bits per parameter), tensors are named by a digit, and no file is written. *lambda 1* also trades error
for bits inside the dependent quantiser, which by default (0) it does not.
"""

from __future__ import annotations

import json
import math
import sys
import time
from types import ModuleType
from typing import Any

import numpy as np

frameworks = ModuleType("nncodec.framework")
for name in ("pytorch_model", "tensorflow_model", "use_case_init"):
    setattr(frameworks, name, ModuleType(name))
sys.modules[frameworks.__name__] = frameworks

from nncodec import nnc  # noqa: E402  # after its frameworks are stood in for

SETTINGS: dict[str, dict[str, Any]] = {"default": {}, "lambda 1": {"lambda_scale": 1.0}}
CALLS = 3


def encode(update: dict[str, np.ndarray], qp: int, setting: str) -> bytes:
    """The bitstream of an update. A step is about 2**(qp / 4)."""
    options = {"nonweight_qp": qp, "use_dq": True, "param_opt": True, "row_skipping": True, **SETTINGS[setting]}
    copies = {name: array.copy() for name, array in update.items()}
    return bytes(nnc.compress(copies, bitstream_path=None, return_bitstream=True, qp=qp, **options))


def nmse(update: dict[str, np.ndarray], stream: bytes) -> float:
    """Squared error of the decoded update over its squared norm."""
    found = nnc.decompress(bytearray(stream))
    pairs = [(a.astype(np.float64), np.asarray(found[name], np.float64)) for name, a in update.items()]
    return float(sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(a**2) for a, _ in pairs))


def measure(update: dict[str, np.ndarray], setting: str, wanted: list[float]) -> list[dict[str, Any]]:
    """A point per NMSE wanted: qp, bytes, NMSE, seconds to encode (the best of some calls)."""
    flat = np.concatenate([a.ravel() for a in update.values()]).astype(np.float64)
    qp = math.ceil(4 * math.log2(32 * math.sqrt(np.mean(flat**2))))
    errors = {qp: 1.0}
    while errors[qp] > 0.8 * min(wanted):
        qp -= 1
        errors[qp] = nmse(update, encode(update, qp, setting))
    points = []
    for target in wanted:
        nearest = min(errors, key=lambda qp: abs(math.log(errors[qp] / target)))
        seconds = []
        for _ in range(CALLS):
            begin = time.perf_counter()
            stream = encode(update, nearest, setting)
            seconds.append(time.perf_counter() - begin)
        point = {"qp": nearest, "size": len(stream), "nmse": errors[nearest], "seconds": min(seconds)}
        points.append({"setting": setting, "wanted": target, **point})
    return points


def main() -> None:
    """Measure and print."""
    with np.load(sys.argv[1]) as file:
        update = {str(i): file[name] for i, name in enumerate(file.files)}
    wanted = [float(text) for text in sys.argv[2:]]
    print(json.dumps([point for setting in SETTINGS for point in measure(update, setting, wanted)]))


if __name__ == "__main__":
    main()

from __future__ import annotations

import subprocess
import sys

#: A finder in front of all others, to which torch and all that comes with it do not exist.
CODE = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "opacus", "sklearn", "onnx", "onnxruntime", "matplotlib", "scipy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
import importlib.util
import tempfile
from pathlib import Path
from fedpress.client.device import Device
from fedpress.client.grpc_link import GrpcLink
from fedpress.client.vault import Vault
from fedpress.client.trainers import registry
from fedpress.client.trainers.idle import IdleTrainer
from fedpress.compression.stream import Stream
from fedpress.errors import MissingExtra
from fedpress.protos import fleet_pb2 as pb
trainer = IdleTrainer.of_size(1000)
trainer.train(trainer.initial(0), pb.Training(), Stream(0))
with Vault(Path(tempfile.mkdtemp()) / "v") as vault:
    device = Device(GrpcLink("127.0.0.1:1"), vault, trainer, "d", "t", sleep=lambda s: None)
    for _ in range(4):
        device.step()
    assert not device.session.reachable
try:
    import fedpress.client.trainers.torch_trainer
except MissingExtra as error:
    assert "fedpress[torch]" in str(error), error
else:
    raise SystemExit("torch was found after all")
assert "torch" not in sys.modules and "opacus" not in sys.modules
print("fine")
"""


def test_a_device_without_torch_runs_everything_else() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr

"""The torch trainer: local epochs of SGD, Adam or AdamW on a CPU or a GPU. Needs torch; with local privacy, opacus.

The optimiser is fresh each round (as in FedAvg); its learning rate comes with the ticket, the schedule applied. Batches
are shuffled by the ticket's stream, so that the same seed gives the same model on the same machine's CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

import numpy as np

from fedpress.client.trainers.trainer import Trained
from fedpress.compression.stream import Stream
from fedpress.errors import MissingExtra, PlanError, closest
from fedpress.params import Array, Spec, Tensors
from fedpress.privacy.accounting import History, Steps
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb
from fedpress.task import ClientData, Task

try:
    import torch

    from fedpress import torch_model
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("The trainer 'torch'", "torch") from error

OPTIMIZERS: Final[Mapping[str, Callable[[list[torch.nn.Parameter], pb.Training], torch.optim.Optimizer]]] = {
    "sgd": lambda p, t: torch.optim.SGD(p, lr=t.lr, momentum=t.momentum, weight_decay=t.weight_decay),
    "adam": lambda p, t: torch.optim.Adam(p, lr=t.lr, weight_decay=t.weight_decay),
    "adamw": lambda p, t: torch.optim.AdamW(p, lr=t.lr, weight_decay=t.weight_decay),
}


class TorchTrainer:
    """Trains a task's module on one client's data. ``device``: "auto", "cpu", "cuda"; ``threads``: torch's, on the CPU.

    With ``secret_noise`` the noise and the sampling of local privacy come from the operating system; without it, from
    the round's stream, so that an experiment repeats and protects nobody.
    """

    name: ClassVar[str] = "torch"

    def __init__(
        self,
        task: Task,
        data: ClientData,
        seed: int,
        device: str = "auto",
        threads: int = 1,
        secret_noise: bool = True,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise PlanError("Expected a CUDA device, torch finds none on this machine: use auto or cpu (train.device).")
        torch.set_num_threads(threads)
        self._task = task
        self._data = data
        self._secret_noise = secret_noise
        self._device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self._module = torch_model.build(task, seed).to(self._device)
        self._spec = torch_model.spec_of(self._module)
        self._x = torch_model.tensor(data.train.x, self._device)
        self._y = torch_model.tensor(data.train.y, self._device)

    @property
    def spec(self) -> Spec:
        """Of the whole module."""
        return self._spec

    def initial(self, seed: int) -> dict[str, Array]:
        """A new module's tensors under ``seed``."""
        return torch_model.dump(torch_model.build(self._task, seed))

    def evaluate(self, model: Tensors) -> tuple[dict[str, float], int]:
        """The task's metrics on the held-out data."""
        torch_model.load(self._module, model)
        return torch_model.evaluate(self._module, self._task, self._data.held_out), len(self._data.held_out)

    def train(
        self,
        model: Tensors,
        training: pb.Training,
        rng: Stream,
        privacy: pb.LocalPrivacy | None = None,
        history: History = (),
    ) -> Trained:
        """See ``Trainer``. A client without data returns the model, with a weight of 0 examples."""
        if training.optimizer not in OPTIMIZERS:
            raise PlanError(
                f"Expected a known optimiser, got '{training.optimizer}'. {closest(training.optimizer, OPTIMIZERS)}"
            )
        if training.batch_size < 1 or not 0 <= training.lr < float("inf"):
            raise PlanError(f"Expected batch_size >= 1 and a learning rate >= 0 from the server, got {training}.")
        count = len(self._x)
        if count == 0:
            return Trained(model, 0, 0, 0.0)
        torch_model.load(self._module, model)
        self._module.train()
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(rng.seed())  # dropout and the like
            optimizer = OPTIMIZERS[training.optimizer](list(self._module.parameters()), training)
            loss, steps, spent = (
                self._plain(optimizer, training, rng)
                if privacy is None
                else self._private(optimizer, training, rng, privacy, history)
            )
        self._module.zero_grad(set_to_none=True)
        return Trained(torch_model.dump(self._module), count, steps, loss, spent)

    def _plain(
        self, optimizer: torch.optim.Optimizer, training: pb.Training, rng: Stream
    ) -> tuple[float, int, Steps | None]:
        total, seen, steps = torch.zeros((), device=self._device), 0, 0
        parameters = list(self._module.parameters())
        for index in _batches(len(self._x), training, rng):
            rows = torch.from_numpy(index).to(self._device)
            optimizer.zero_grad(set_to_none=True)
            loss = torch_model.batch_loss(self._task, self._module(self._x[rows]), self._y[rows])
            loss.backward()
            if training.max_grad_norm > 0:
                torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
            optimizer.step()
            total, seen, steps = total + loss.detach() * len(index), seen + len(index), steps + 1
        return float(total) / seen, steps, None

    def _private(
        self,
        optimizer: torch.optim.Optimizer,
        training: pb.Training,
        rng: Stream,
        privacy: pb.LocalPrivacy,
        history: History,
    ) -> tuple[float, int, Steps | None]:
        from fedpress.privacy import local  # opacus takes a second to import

        def loss_of(module: Any, rows: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = torch_model.batch_loss(self._task, module(self._x[rows]), self._y[rows])
            return loss

        noise = Noise.secret() if self._secret_noise else Noise.seeded(rng)
        return local.train(self._module, optimizer, loss_of, len(self._x), training, privacy, history, noise)


def _batches(count: int, training: pb.Training, rng: Stream) -> Iterator[Array]:
    """Indices of each batch: shuffled epochs, at most ``max_steps`` in all. A last batch of one example joins the one
    before it, because batch normalisation has no variance of one."""
    size, left = training.batch_size, training.max_steps or -1
    for _ in range(training.epochs):
        order = np.argsort(rng.u64(count), kind="stable")
        starts = list(range(0, count, size))
        if size > 1 and len(starts) > 1 and count - starts[-1] == 1:
            starts.pop()
        for start, end in zip(starts, [*starts[1:], count], strict=True):
            if left == 0:
                return
            left -= 1
            yield order[start:end]

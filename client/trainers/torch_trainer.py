"""The torch trainer: local epochs of SGD, Adam or AdamW on a CPU or a GPU. Needs torch; with local privacy, opacus.

The optimiser is fresh each round (as in FedAvg); its learning rate comes with the ticket, the schedule applied. Batches
are shuffled by the ticket's stream, so that the same seed gives the same model on the same machine's CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fedpress.client.trainers.batches import batches, check
from fedpress.client.trainers.trainer import PLAIN, Nudge, Point, Terms, Trained
from fedpress.compression.stream import Stream
from fedpress.errors import MissingExtra, PlanError, closest
from fedpress.params import Array, Spec, Tensors
from fedpress.privacy.accounting import History, Steps
from fedpress.privacy.dpsgd import Mechanism
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb
from fedpress.task import ClientData, Task

try:
    import torch

    from fedpress import torch_model
    from fedpress.client.trainers import representation
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("The trainer 'torch'", "torch") from error

#: Examples per pass where nothing is trained.
_CHUNK: Final = 512
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
        self._left_behind = torch_model.left_behind(self._module)
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
        self._set(model)
        return torch_model.evaluate(self._module, self._task, self._data.held_out), len(self._data.held_out)

    def train(
        self,
        model: Tensors,
        training: pb.Training,
        rng: Stream,
        privacy: pb.LocalPrivacy | None = None,
        history: History = (),
        terms: Terms = PLAIN,
    ) -> Trained:
        """See ``Trainer``. A client without data returns the model, with a weight of 0 examples."""
        if training.optimizer not in OPTIMIZERS:
            raise PlanError(
                f"Expected a known optimiser, got '{training.optimizer}'. {closest(training.optimizer, OPTIMIZERS)}"
            )
        check(training)
        if self.examples == 0:
            return Trained(model, 0, 0, 0.0)
        self._set(model)
        self._module.train()
        with self._seeded(rng), self._trainable(terms.only):
            chosen = [p for p in self._module.parameters() if p.requires_grad]
            if not chosen:
                named = ", ".join(terms.only or ())
                raise PlanError(f"Expected a parameter to train, got only buffers: {named} (strategy.personal).")
            optimizer = OPTIMIZERS[training.optimizer](chosen, training)
            loss, steps, spent = (
                self._plain(optimizer, training, rng, terms)
                if privacy is None
                else self._private(optimizer, training, rng, privacy, history, terms)
            )
        self._module.zero_grad(set_to_none=True)
        return Trained(torch_model.dump(self._module), self.examples, steps, loss, spent)

    def begin(self) -> None:
        """See ``Differentiable``."""
        torch_model.put_back(self._module, self._left_behind)

    def _set(self, model: Tensors) -> None:
        """Make the module ``model``, with nothing in it of earlier training."""
        torch_model.load(self._module, model)
        self.begin()

    @property
    def examples(self) -> int:
        """Rows of the training data."""
        return len(self._x)

    def point(self, model: Tensors) -> Point:
        """Tensors on the trainer's device."""
        return {name: torch.from_numpy(np.array(array)).to(self._device) for name, array in model.items()}

    def tensors(self, point: Mapping[str, Any]) -> Tensors:
        """Copies as NumPy's."""
        return {name: np.array(value.detach().cpu().numpy()) for name, value in point.items()}

    def noise(self, rng: Stream) -> Noise:
        """See ``Differentiable``."""
        return Noise.secret() if self._secret_noise else Noise.seeded(rng)

    def gradient(
        self, point: Point, rows: NDArray[np.int64], rng: Stream, guard: Mechanism | None = None
    ) -> tuple[Point, float]:
        """See ``Differentiable``. The module is lent ``point``'s memory: nothing is copied."""
        module = self._module
        lent = [(v, v.data, point[n]) for n, v in (*module.named_parameters(), *module.named_buffers()) if n in point]
        module.train()
        module.zero_grad(set_to_none=True)
        for value, _, data in lent:
            value.data = data
        try:
            with self._seeded(rng):
                loss = self._slope(torch.from_numpy(rows).to(self._device), guard)
        finally:
            for value, own, _ in lent:
                value.data = own
        found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in module.named_parameters()}
        module.zero_grad(set_to_none=True)
        return found, loss

    def _slope(self, rows: torch.Tensor, guard: Mechanism | None) -> float:
        """Leave a gradient in the parameters' ``grad``; the loss, or 0.0 if that is private."""
        if guard is None:
            loss = self._loss(self._module, rows)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())
        from fedpress.privacy import clipping, local  # opacus takes a second to import

        local.gradient(self._module, clipping.Objective(self._loss, self._losses), rows, guard)
        return 0.0

    @torch.no_grad()
    def loss(self, model: Tensors) -> float:
        """See ``Differentiable``."""
        self._set(model)
        self._module.eval()
        total = 0.0
        for at in range(0, self.examples, _CHUNK):
            rows = torch.arange(at, min(at + _CHUNK, self.examples), device=self._device)
            total += float(self._loss(self._module, rows)) * len(rows)
        return total / max(1, self.examples)

    def _loss(self, module: Any, rows: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = torch_model.batch_loss(self._task, module(self._x[rows]), self._y[rows])
        return loss

    def _losses(self, module: Any, rows: torch.Tensor) -> torch.Tensor:
        losses: torch.Tensor = torch_model.each_loss(self._task, module(self._x[rows]), self._y[rows])
        return losses

    @contextmanager
    def _seeded(self, rng: Stream) -> Iterator[None]:
        """Dropout and the like draw from ``rng``; the process's random state is left as it was."""
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(rng.seed())
            yield

    @contextmanager
    def _trainable(self, only: Collection[str] | None) -> Iterator[None]:
        """Of the parameters that ask for gradients only these do."""
        asking = [(n, p) for n, p in self._module.named_parameters() if p.requires_grad]
        frozen = [p for n, p in asking if only is not None and n not in only]
        for p in frozen:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in frozen:
                p.requires_grad_(True)

    def _nudged(self, nudge: Nudge | None) -> Callable[[], None] | None:
        """Applies ``nudge`` to the gradients that the module's parameters hold."""
        if nudge is None:
            return None
        chosen = {n: p for n, p in self._module.named_parameters() if p.requires_grad}
        at = {n: v.data for n, v in (*self._module.named_parameters(), *self._module.named_buffers())}

        def act() -> None:
            gradients = {n: p.grad for n, p in chosen.items() if p.grad is not None}
            nudge(at, gradients)
            for name, gradient in gradients.items():
                chosen[name].grad = gradient

        return act

    def _plain(
        self, optimizer: torch.optim.Optimizer, training: pb.Training, rng: Stream, terms: Terms
    ) -> tuple[float, int, Steps | None]:
        total, seen, steps = torch.zeros((), device=self._device), 0, 0
        parameters = list(self._module.parameters())
        nudged = self._nudged(terms.nudge)
        with representation.contrasted(self._module, terms.contrast) as pull:
            for index in batches(self.examples, training, rng):
                rows = torch.from_numpy(index).to(self._device)
                optimizer.zero_grad(set_to_none=True)
                loss = self._loss(self._module, rows)
                (loss + pull(self._x[rows])).backward()
                if training.max_grad_norm > 0:
                    torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
                if nudged:
                    nudged()
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
        terms: Terms,
    ) -> tuple[float, int, Steps | None]:
        from fedpress.privacy import clipping, local  # opacus takes a second to import

        if terms.contrast is not None:
            raise PlanError("Expected no term on representations with local privacy, whose gradient is not clipped.")
        objective, noise = clipping.Objective(self._loss, self._losses), self.noise(rng)
        nudged = self._nudged(terms.nudge)
        return local.train(self._module, optimizer, objective, self.examples, training, privacy, history, noise, nudged)

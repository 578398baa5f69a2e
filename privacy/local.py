"""Local differential privacy: DP-SGD on the device (Abadi et al. 2016), through Opacus. Needs torch and opacus.

Opacus gives per-example gradients and the optimiser that clips them (flat clipping: one norm per example over all
tensors). From us: Poisson sampling, the noise's source (``privacy.noise``), and the checks before anything is touched.

What the guarantee covers: the trained tensors, for adding or removing one training example, whoever sees every update.
What it does not: the number of examples (the weight), and metrics of held-out data, where the plan asks for them. The
training loss is not covered either, which is why a device does not report it under local privacy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch

from fedpress.errors import MissingExtra, PrivacyError
from fedpress.privacy.accounting import History, Steps, afford
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb

try:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer
    from opacus.validators import ModuleValidator
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("Local privacy", "torch") from error

#: What to put in the place of a layer whose examples see each other, or that Opacus cannot differentiate per example.
REMEDIES: Final[Mapping[str, str]] = {
    "BatchNorm1d": "GroupNorm or LayerNorm",
    "BatchNorm2d": "GroupNorm",
    "BatchNorm3d": "GroupNorm",
    "SyncBatchNorm": "GroupNorm",
    "LSTM": "opacus.layers.DPLSTM",
    "GRU": "opacus.layers.DPGRU",
    "RNN": "opacus.layers.DPRNN",
    "MultiheadAttention": "opacus.layers.DPMultiheadAttention",
    "InstanceNorm1d": "the same with track_running_stats=False",
    "InstanceNorm2d": "the same with track_running_stats=False",
    "InstanceNorm3d": "the same with track_running_stats=False",
}


def plan_steps(examples: int, training: pb.Training, privacy: pb.LocalPrivacy) -> Steps:
    """The noisy steps that ``training`` means: one per batch, an example in each with chance 1/(batches per epoch)."""
    per_epoch = -(-examples // training.batch_size)
    steps = training.epochs * per_epoch
    return Steps(privacy.noise_multiplier, 1 / per_epoch, min(steps, training.max_steps or steps))


def check(module: torch.nn.Module) -> None:
    """Raise PrivacyError, naming the layer and what to use instead, for a module that cannot be trained privately."""
    module.train()
    for name, layer in module.named_modules():
        validate = ModuleValidator.VALIDATORS.get(type(layer))
        trainable = any(p.requires_grad for p in layer.parameters(recurse=False))
        buffers = [f"{name}.{buffer}" for buffer, _ in layer.named_buffers(recurse=False)] if trainable else []
        if buffers or (validate is not None and validate(layer)):
            kind = type(layer).__name__
            remedy = REMEDIES.get(kind, "a layer without buffers" if buffers else "a layer that treats examples apart")
            raise PrivacyError(
                f"Layer '{name}' ({kind}) cannot be trained with local privacy: use {remedy} "
                "in the task's model() (privacy.mode)."
            )


def train(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Any, torch.Tensor], torch.Tensor],
    examples: int,
    training: pb.Training,
    privacy: pb.LocalPrivacy,
    history: History,
    noise: Noise,
    nudge: Callable[[], None] | None = None,
) -> tuple[float, int, Steps]:
    """Train ``module`` in place. ``loss_of(module, rows)`` is the mean loss of the examples with these indices;
    ``nudge`` changes the noised gradients by what knows nothing of this step's examples.

    Returns the mean loss, the steps taken and what they spent. Raises PrivacyError for a layer that cannot be trained
    privately, and BudgetSpent, before any data is touched, where the steps would pass the budget.
    """
    if not (privacy.noise_multiplier > 0 and privacy.clip_norm > 0 and 0 < privacy.delta < 1):
        raise PrivacyError(
            f"Expected noise_multiplier > 0, clip_norm > 0 and 0 < delta < 1 from the server, got {privacy}."
        )
    check(module)
    spend = plan_steps(examples, training, privacy)
    afford(history, spend, privacy.delta, privacy.max_epsilon)
    buffers = {name: value.clone() for name, value in module.named_buffers() if value.is_floating_point()}
    total, seen = 0.0, 0
    with _per_example(module) as wrapped:
        private = _Optimizer(optimizer, spend.sample_rate * examples, privacy, noise)
        if nudge is not None:
            private.attach_step_hook(lambda _: nudge())
        for _ in range(spend.steps):
            rows = torch.from_numpy((noise.uniform(examples) < spend.sample_rate).nonzero()[0])
            private.zero_grad(set_to_none=True)
            if len(rows):
                loss = loss_of(wrapped, rows.to(next(module.parameters()).device))
                loss.backward()  # type: ignore[no-untyped-call]
                total, seen = total + float(loss.detach()) * len(rows), seen + len(rows)
            else:  # an empty draw is a step like any other: it adds noise to a sum of no gradients
                for p in private.params:
                    p.grad_sample = p.new_zeros((0, *p.shape))
            private.step()
    changed = [name for name, value in module.named_buffers() if name in buffers and not value.equal(buffers[name])]
    if changed:
        raise PrivacyError(
            f"Buffer '{changed[0]}' changed in training and would carry the examples out without noise: "
            "use a layer without running statistics in the task's model() (privacy.mode)."
        )
    return total / max(1, seen), spend.steps, spend


class _Optimizer(DPOptimizer):  # type: ignore[misc]  # opacus has no types
    """Opacus' optimiser, noise from ``Noise``. ``mean_batch``: expected examples per step, which divides the sum."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, mean_batch: float, privacy: pb.LocalPrivacy, noise: Noise
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=privacy.noise_multiplier,
            max_grad_norm=privacy.clip_norm,
            expected_batch_size=mean_batch,
        )
        self._noise = noise

    def add_noise(self) -> None:
        """``grad = sum of clipped gradients + noise``, per tensor."""
        for p in self.params:
            drawn = self._noise.gaussian(p.numel(), self.noise_multiplier * self.max_grad_norm)
            p.grad = p.summed_grad + torch.from_numpy(drawn).to(p).reshape(p.shape)


@contextmanager
def _per_example(module: torch.nn.Module) -> Iterator[Any]:
    """The module wrapped for per-example gradients; everything Opacus hangs on it is taken off again."""
    with warnings.catch_warnings():
        # torch says that the first layer's hook sees no gradient of the input. Opacus needs none there.
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        wrapped = GradSampleModule(module)
        try:
            yield wrapped
        finally:
            wrapped.to_standard_module()
            for p in module.parameters():
                for name in ("grad_sample", "summed_grad", "_forward_counter"):
                    if hasattr(p, name):
                        delattr(p, name)

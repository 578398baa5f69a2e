"""Local differential privacy: DP-SGD on the device (Abadi et al. 2016), through Opacus. Needs torch and opacus.

Opacus gives per-example gradients and clips them (``privacy.clipping``). From us: Poisson sampling, the noise's source
(``privacy.noise``), and the checks before anything is touched.

What the guarantee covers: the trained tensors, for adding or removing one training example, whoever sees every update.
What it does not: the number of examples (the weight), and metrics of held-out data, where the plan asks for them. The
training loss is not covered either, which is why a device does not report it under local privacy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from fedpress.errors import PrivacyError
from fedpress.privacy.accounting import History, Steps, extended
from fedpress.privacy.clipping import Objective, clipping
from fedpress.privacy.dpsgd import Mechanism, mechanism, pay, plan_steps
from fedpress.privacy.modules import check
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb


def train(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    examples: int,
    training: pb.Training,
    privacy: pb.LocalPrivacy,
    history: History,
    noise: Noise,
    nudge: Callable[[], None] | None = None,
) -> tuple[float, int, Steps]:
    """Train ``module`` in place; ``nudge`` changes the noised gradients by what knows nothing of this step's examples.

    Returns the mean loss, the steps taken and what they spent. Raises PrivacyError for a layer that cannot be trained
    privately, and BudgetSpent, before any data is touched, where the steps would pass the budget.
    """
    spend = plan_steps(examples, training, privacy)
    check(module)
    pay(history, extended(history, spend), privacy)
    guard = mechanism(examples, privacy, spend.sample_rate, noise)
    total, seen = 0.0, 0
    parameters = _trainable(module)
    device = parameters[0].device
    with _same_buffers(module), clipping(module, parameters, guard) as gradient:
        for _ in range(spend.steps):
            rows = guard.draw()
            total += gradient(objective, torch.from_numpy(rows).to(device))
            seen += len(rows)
            if nudge is not None:
                nudge()
            optimizer.step()
    return total / max(1, seen), spend.steps, spend


def gradient(module: torch.nn.Module, objective: Objective, rows: torch.Tensor, guard: Mechanism) -> None:
    """One noisy gradient, left in the parameters' ``grad``. What it costs is for the caller to count.

    Raises PrivacyError for a layer that cannot be trained privately.
    """
    check(module)
    with _same_buffers(module), clipping(module, _trainable(module), guard) as noisy:
        noisy(objective, rows)


def _trainable(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


@contextmanager
def _same_buffers(module: torch.nn.Module) -> Iterator[None]:
    """Raise PrivacyError afterwards for a buffer that changed."""
    before = {name: value.clone() for name, value in module.named_buffers() if value.is_floating_point()}
    yield
    changed = [name for name, value in module.named_buffers() if name in before and not value.equal(before[name])]
    if changed:
        raise PrivacyError(
            f"Buffer '{changed[0]}' changed in training and would carry the examples out without noise: "
            "use a layer without running statistics in the task's model() (privacy.mode)."
        )

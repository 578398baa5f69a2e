"""What our DP-SGD costs beside Opacus' own: ``python -m fedpress.simulations.benchmarks.dp_overhead``.

Both train the same model on the same examples for as many steps, Poisson sampled at the same rate: the torch trainer as
a device would, and the loop of Opacus' manual around ``PrivacyEngine.make_private``. They take turns in one process;
each figure is the median of some turns. Ours brings noise from the operating system in float64 where Opacus draws
float32 from torch's generator (its secure mode needs a package that does not exist for this torch); the last column is
that noise alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from fedpress import torch_model
from fedpress.client.trainers.torch_trainer import TorchTrainer
from fedpress.compression.stream import Stream
from fedpress.errors import MissingExtra
from fedpress.privacy.noise import Noise
from fedpress.protos import fleet_pb2 as pb
from fedpress.simulations.data import located
from fedpress.simulations.tasks import load_task
from fedpress.task import ClientData, Task

try:
    import torch
    from opacus import PrivacyEngine
except ModuleNotFoundError as error:  # pragma: no cover - the base install
    raise MissingExtra("The benchmark of local privacy", "torch") from error

#: Ours, and Opacus' ``grad_sample_mode``.
WAYS: Final = {"flat": "hooks", "ghost": "ghost"}
NOISE, CLIP, LR = 1.0, 1.0, 0.1


def ours(task: Task, data: ClientData, batch: int, clipping: str) -> Callable[[], float]:
    """Seconds per step of one pass of the torch trainer; ``clipping`` "": without privacy."""
    trainer = TorchTrainer(task, data, 0, "cpu")
    model, training = trainer.initial(0), pb.Training(epochs=1, batch_size=batch, optimizer="sgd", lr=LR)
    privacy = pb.LocalPrivacy(noise_multiplier=NOISE, clip_norm=CLIP, delta=1e-6, clipping=clipping)

    def once() -> float:
        began = time.perf_counter()
        trained = trainer.train(model, training, Stream(0), privacy if clipping else None)
        return (time.perf_counter() - began) / trained.steps

    return once


def theirs(task: Task, data: ClientData, batch: int, mode: str) -> Callable[[], float]:
    """The same of Opacus' engine."""
    module = torch_model.build(task, 0)
    x, y = torch_model.tensor(data.train.x), torch_model.tensor(data.train.y)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=batch)
    module, optimizer, *criterion, loader = PrivacyEngine().make_private(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=LR),
        criterion=torch.nn.CrossEntropyLoss(),
        data_loader=loader,
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        grad_sample_mode=mode,
    )
    loss_of = criterion[0] if criterion else torch.nn.CrossEntropyLoss()

    def once() -> float:
        began = time.perf_counter()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss_of(module(inputs), targets).backward()
            optimizer.step()
        return (time.perf_counter() - began) / len(loader)

    return once


def noise_alone(size: int) -> float:
    """Seconds that our noise for a model of so many parameters takes."""
    began = time.perf_counter()
    Noise.secret().gaussian(size, 1.0)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["digits", "fashion-mnist"])
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = ("task", "parameters", "clipping", "Opacus alone", "fedpress", "ratio", "without privacy", "noise")
    table = Table(*columns, title=f"DP-SGD, ms per step of {options.batch} examples on one core")
    for name in options.tasks:
        task = load_task(name)
        everything = task.data(located(None))
        data = ClientData(everything.train.take(np.arange(options.examples)), everything.test)
        plain = ours(task, data, options.batch, "")
        size = torch_model.spec_of(torch_model.build(task, 0)).size
        noise = partial(noise_alone, size)
        for clipping, mode in WAYS.items():
            runs = (theirs(task, data, options.batch, mode), ours(task, data, options.batch, clipping), plain, noise)
            for run in runs:  # the first turn of each loads what it needs
                run()
            turns = [[run() for run in runs] for _ in range(options.turns)]
            medians = [statistics.median(column) for column in zip(*turns, strict=True)]
            told = [f"{1e3 * seconds:.2f}" for seconds in medians]
            table.add_row(name, str(size), clipping, *told[:2], f"{medians[1] / medians[0]:.2f}", *told[2:])
    Console(width=120).print(table)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Full backward hook|Secure RNG")
    main()

"""A plan made concrete: its task, its data, who holds what, the initial model, and the server's measure of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final

import numpy as np

from fedpress.client.trainers import registry as trainers
from fedpress.client.trainers.trainer import Trainer
from fedpress.errors import PlanError, PrivacyError, TaskError
from fedpress.params import Model, Tensors
from fedpress.plan import Plan
from fedpress.server.run import check
from fedpress.server.strategies import build as build_strategy
from fedpress.simulations import data as data_sets
from fedpress.simulations.availability import Availability, availability
from fedpress.simulations.partition import names, partition
from fedpress.simulations.profiles import Profile, profiles
from fedpress.simulations.tasks import load_task
from fedpress.task import ClientData, Data, Task

#: Examples that a model is tried on before anything starts.
_TRIED: Final = 2


class Problem:
    """What a plan says is to be learned. Everything is loaded when first asked for, once.

    Raises PlanError, TaskError, DataError or MissingExtra, each before anything starts.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.task: Task = load_task(plan.task.name)
        if plan.privacy.fix_modules:
            from fedpress.privacy.modules import fixed

            self.task = fixed(self.task)

    @cached_property
    def data(self) -> Data:
        """The data set."""
        data = self.task.data(data_sets.located(self.plan.task.data_dir))
        data.check(self.task.name)
        return data

    @cached_property
    def clients(self) -> list[ClientData]:
        """What each simulated client holds."""
        return partition(self.data, self.plan.clients, self.plan.run.seed)

    @cached_property
    def names(self) -> list[str]:
        """The clients' names, in the order of ``clients``."""
        return names(self.data, self.plan.clients)

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """How fast each client is in virtual time, by name."""
        return profiles(self.plan.fleet, self.names, self.plan.run.seed)

    @cached_property
    def availability(self) -> Availability | None:
        """When each client is there; None: always."""
        return availability(self.plan, self.names)

    @cached_property
    def initial(self) -> Model:
        """The whole model before round 1, checked against the plan's strategy."""
        from fedpress import torch_model

        module = torch_model.build(self.task, self.plan.run.seed)
        model = Model(torch_model.spec_of(module), torch_model.dump(module), torch_model.unsent(module))
        for name, array in model.tensors.items():
            if not np.isfinite(array).all():
                raise TaskError(
                    f"Expected finite numbers in the model of task '{self.task.name}', got NaN or infinity in "
                    f"'{name}', {int((~np.isfinite(array)).sum())} of {array.size}: mend model(). A constant such as "
                    "a mask may be left out of the state, register_buffer(..., persistent=False)."
                )
        check(self.plan, model.spec)
        return model

    def check(self) -> None:
        """Load all there is to load, so that what is wrong with a plan is said before anything starts."""
        _ = self.names, self.availability, self.clients, self.profiles, self.initial
        self.check_buffers()
        if self.plan.train.trainer == "numpy":
            self.trainer(0)  # says what it cannot train
        if self.plan.privacy.mode == "local":
            self._check_local()

    def check_buffers(self) -> None:
        """Try the model on some of the data: what changes in training must be able to travel, and under central privacy
        to leave. Raises TaskError and PrivacyError, naming a buffer that cannot."""
        from fedpress import torch_model

        model, task, seed = self.initial, self.task, self.plan.run.seed
        layout = build_strategy(self.plan).layout(model.spec)
        sent = {p.of for p in layout} & set(model.spec.named("statistic"))
        guarded = sent if self.plan.privacy.mode == "central" else set[str]()
        split = self.data.train if len(self.data.train) >= _TRIED else self.data.test
        if not (guarded or model.unsent) or len(split) < _TRIED:
            return
        module = torch_model.build(task, seed)
        for name, array in torch_model.unsent(module).items():
            if not np.array_equal(array, model.unsent[name]):
                raise TaskError(
                    f"Expected model() of task '{task.name}' to make the same '{name}' each time, got another: draw it "
                    "from torch, numpy.random or random, which are seeded before each call."
                )
        for name in torch_model.moved_by_training(task, module, split.x[:_TRIED]):
            if name in model.unsent:
                raise TaskError(
                    f"Expected integers and booleans that training leaves alone in task '{task.name}', but it changes "
                    f"'{name}' ({model.unsent[name].dtype}), which does not travel: keep it as a float buffer, which "
                    "is averaged, or leave it out of the state, register_buffer(..., persistent=False)."
                )
            if name in guarded:
                raise PrivacyError(
                    f"Expected no statistics of the data under central privacy, but training changes the buffer "
                    f"'{name}' of task '{task.name}', which noise cannot hide: use GroupNorm or LayerNorm in model(), "
                    "or set privacy.fix_modules = true to have BatchNorm replaced (privacy.mode)."
                )

    def _check_local(self) -> None:
        """Say before anything starts what each device would decline. Raises PlanError, PrivacyError."""
        most, delta = max(len(client.train) for client in self.clients), self.plan.privacy.delta
        if delta * most >= 1:
            raise PlanError(
                f"Expected privacy.delta below 1/{most}, one in as many as the largest client's examples, got "
                f"{delta:g}: publishing one of them outright would count as private (privacy.delta)."
            )
        if self.plan.train.trainer == "torch":
            from fedpress import torch_model
            from fedpress.privacy import modules

            modules.check(torch_model.build(self.task, self.plan.run.seed))

    def trainer(self, shard: int) -> Trainer:
        """The trainer of one simulated client."""
        return self.trainer_on(self.clients[shard])

    def local_trainer(self) -> Trainer:
        """The trainer of a real device, which holds all that the task's ``data`` gives: it holds out the test part."""
        return self.trainer_on(ClientData(self.data.train, self.data.test))

    def trainer_on(self, data: ClientData) -> Trainer:
        """A trainer on given data, as the plan says."""
        plan = self.plan
        return trainers.make(
            plan.train.trainer,
            self.task,
            data,
            plan.run.seed,
            device=plan.train.device,
            threads=plan.engine.threads,
        )

    def evaluator(self) -> Callable[[Tensors], Mapping[str, float]]:
        """Measures a whole model on the server's test data."""
        from fedpress import torch_model

        module = torch_model.build(self.task, self.plan.run.seed)
        test, batch = self.data.test, self.plan.evaluate.batch_size

        def evaluate(model: Tensors) -> Mapping[str, float]:
            torch_model.load(module, model)
            return torch_model.evaluate(module, self.task, test, batch)

        return evaluate

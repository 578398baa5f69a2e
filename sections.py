"""The sections of a plan: every key that there is, with its default, its range and one line of help.

What one key says about others of its section is checked here; what sections say about each other, in ``plan``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fedpress.compression.registry import parse as parse_codec
from fedpress.errors import CodecError


class Section(BaseModel):
    """What all sections have in common: frozen, and no keys but their own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


#: Below it, noise on examples' gradients promises nothing.
_LEAST_NOISE: Final = 0.1
#: In place of a codec: chosen for each client and round.
AUTO: Final = "auto"
Fraction = Annotated[float, Field(gt=0, le=1)]


class Run(Section):
    """The run as a whole."""

    name: str = Field("run", pattern=r"^[\w.-]+$", description="directory name under `out`")
    out: Path = Field(Path("runs"), description="where runs are kept")
    seed: int = Field(0, ge=0, lt=2**63, description="of everything that is drawn, privacy noise excepted")
    rounds: int = Field(30, ge=1, description="rounds of training")
    checkpoint_every: int = Field(10, ge=0, description="rounds between safetensors checkpoints; 0: best and last only")


class TaskSection(Section):
    """The problem."""

    name: str = Field("digits", description="a built-in task, or the path of a task.py")
    data_dir: Path | None = Field(None, description="where data sets are; default: $FEDPRESS_DATA or ~/.cache/fedpress")


class Clients(Section):
    """Who holds which data, in a simulation or a demo fleet. Real devices bring their own."""

    count: int = Field(10, ge=1, description="number of clients; natural partitions take the first so many owners")
    partition: Literal["iid", "dirichlet", "shards", "natural"] = Field("dirichlet", description="how data is split")
    alpha: float = Field(0.3, gt=0, description="Dirichlet concentration: small is skewed")
    shards: int = Field(2, ge=1, description="label shards per client")
    holdout: float = Field(0.1, ge=0, lt=1, description="share of each client's data kept for its own metrics")
    availability: str = Field("always", description="when clients are there: always, diurnal, or a trace (.csv)")
    availability_in: Literal["rounds", "seconds"] = Field(
        "rounds", description="the time of a trace and of day: rounds or seconds"
    )
    available: Fraction = Field(0.5, description="diurnal: share of the day that each client is there, in one stretch")
    day: float = Field(24.0, gt=0, description="diurnal: length of the day, in rounds or seconds")


class Train(Section):
    """What a client does with a model."""

    trainer: Literal["torch", "numpy", "idle"] = Field(
        "torch", description="torch; numpy: perceptrons by SGD; idle: no training, to measure the rest"
    )
    epochs: int = Field(1, ge=1, description="passes over the local data per round")
    epochs_end: int = Field(0, ge=0, description="passes in the last round, linearly from epochs; 0: constant")
    max_steps: int = Field(0, ge=0, description="limit on steps per round; 0: none")
    batch_size: int = Field(32, ge=1, description="examples per step")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="local optimiser, fresh each round")
    lr: float = Field(0.1, gt=0, description="learning rate at round 1, or after the warm-up")
    lr_end: float = Field(0.0, ge=0, description="learning rate that linear and cosine end at")
    schedule: Literal["constant", "linear", "cosine", "step"] = Field(
        "constant", description="learning rate by round: constant, linear, cosine or step"
    )
    lr_drop_every: int = Field(0, ge=0, description="schedule step: rounds between two drops of the learning rate")
    lr_drop: Fraction = Field(0.1, description="schedule step: what each drop multiplies the learning rate by")
    warmup_rounds: int = Field(0, ge=0, description="first rounds in which the learning rate climbs linearly to lr")
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(0.0, ge=0, description="of the optimiser")
    max_grad_norm: float = Field(0.0, ge=0, description="clip gradients to this L2 norm; 0: never")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where torch trains")

    @model_validator(mode="after")
    def _scheduled(self) -> Self:
        if (self.schedule == "step") != (self.lr_drop_every > 0):
            raise ValueError(
                f"expected train.lr_drop_every > 0 with schedule = 'step' and only there, "
                f"got {self.lr_drop_every} with '{self.schedule}'"
            )
        return self


class Cohort(Section):
    """Who takes part in a round, and how long it may last."""

    fraction: Fraction = Field(1.0, description="share of enrolled clients per round")
    selection: Literal["uniform", "poisson", "weighted", "round-robin", "deadline-aware"] = Field(
        "uniform",
        description="uniform, weighted (by examples: then strategy.weighting = uniform), round-robin, deadline-aware, "
        "or poisson (central privacy: each client by itself)",
    )
    require: tuple[Literal["charging", "unmetered", "idle"], ...] = Field(
        (), description="charging, unmetered, idle: no device is invited that says it is not; silence is consent"
    )
    min_clients: int = Field(0, ge=0, description="enrolled clients before round 1; 0: all of clients.count")
    min_updates: int = Field(1, ge=1, description="updates without which a round is not closed")
    over_select: float = Field(1.0, ge=1, description="invite so many times the cohort, close when the cohort is full")
    deadline_s: float = Field(600.0, gt=0, description="seconds until a round closes with what has arrived")
    late: Literal["drop", "fold"] = Field("drop", description="an update whose round has closed: not counted, or later")
    buffer: int = Field(
        0, ge=0, description="no cohorts: a version after so many updates, whenever they come; 0: rounds"
    )
    concurrency: int = Field(0, ge=0, description="clients that train at once, with buffer; 0: as many as the cohort")
    max_staleness: int = Field(10, ge=0, description="versions that an update may be late, with buffer or late = fold")
    discount: float = Field(0.5, ge=0, le=10, description="a late update weighs (1 + versions late) ** -discount")

    @property
    def patience(self) -> int:
        """Versions that an update may be late and count."""
        return self.max_staleness if self.buffer or self.late == "fold" else 0


class StrategySection(Section):
    """The algorithm. Further keys are its own options: `fedpress strategies` lists them."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=False, allow_inf_nan=False)

    name: str = Field("fedavg", description="one of `fedpress strategies`")
    weighting: Literal["examples", "uniform"] = Field("examples", description="weight of a client's update")
    lr: float = Field(0.0, ge=0, le=10, description="the server's learning rate; 0: the strategy's own, mostly 1")

    @property
    def options(self) -> Mapping[str, Any]:
        """The named strategy's own options, as given; checked where it is built."""
        return self.model_extra or {}


class Upload(Section):
    """Device to server."""

    codec: str = Field(AUTO, description="the update's codec chain; auto: chosen for each round")
    rate_end: float = Field(
        0.0, ge=0, description="rate of ecsq or dither, or loss of nmse, in the last round, linearly; 0: constant"
    )
    floor: float = Field(0.0, ge=0, le=0.99999, description="auto: the share of an update's energy to keep at least")

    @field_validator("codec")
    @classmethod
    def _known(cls, text: str) -> str:
        return text if text == AUTO else _codec(text)

    @model_validator(mode="after")
    def _rated(self) -> Self:
        if self.rate_end and not re.search(r"\b(ecsq|dither|nmse)\b", self.codec):
            raise ValueError(f"expected upload.rate_end = 0 with the codec '{self.codec}', which has no rate")
        return self


class Download(Section):
    """Server to device."""

    codec: str = Field(AUTO, description="of deltas (or of whole models in mode full); auto: chosen for each round")
    mode: Literal["delta", "full"] = Field("delta", description="send what changed since the device's version, or all")
    history: int = Field(50, ge=1, description="versions whose deltas are kept for devices that missed rounds")

    floor: float = Field(0.0, ge=0, le=0.99999, description="auto: the share of a change's energy to keep at least")

    @field_validator("codec")
    @classmethod
    def _known(cls, text: str) -> str:
        return text if text == AUTO else _codec(text)

    @model_validator(mode="after")
    def _changes(self) -> Self:
        if self.codec == AUTO and self.mode == "full":
            raise ValueError("expected a download.codec for whole models, such as 'int8', with download.mode = 'full'")
        return self


class Evaluate(Section):
    """Where the model is measured."""

    server_every: int = Field(1, ge=0, description="rounds between evaluations on the server's test data; 0: never")
    clients_every: int = Field(1, ge=0, description="rounds between evaluations on clients' held-out data; 0: never")
    batch_size: int = Field(512, ge=1, description="examples per evaluation batch")


class Stop(Section):
    """Early stopping, and which model is best: by the server's metrics or, where it measures none, the clients'."""

    metric: str = Field("accuracy", min_length=1, description="of the task; loss is better when lower, others higher")
    patience: int = Field(0, ge=0, description="end after so many rounds without an improvement; 0: never")
    min_delta: float = Field(0.0, ge=0, description="what the metric must improve by, or it is no improvement")
    target: float = Field(0.0, ge=0, description="end once the metric is as good as this; 0: no target")

    @property
    def early(self) -> bool:
        """The run may end before its last round."""
        return bool(self.patience or self.target)


class Watch(Section):
    """What a run warns of by itself: see docs/watching.md."""

    floor: float = Field(0.05, ge=0, lt=1, description="least share of what codecs are given that must arrive; 0: none")
    still_rounds: int = Field(5, ge=1, description="rounds in which nothing arrives, or the model does not move")


class Privacy(Section):
    """Differential privacy: local, DP-SGD on the device; central, of whole clients, on the server. See
    docs/privacy.md."""

    mode: Literal["none", "local", "central"] = Field("none", description="who adds noise: nobody, devices, the server")
    noise_multiplier: float = Field(1.0, gt=0, description="noise standard deviation over clip_norm")
    clip_norm: float = Field(1.0, gt=0, description="L2 bound: local, per example; central, per client's update")
    delta: float = Field(1e-5, gt=0, lt=1, description="of (epsilon, delta)")
    epsilon: float = Field(0.0, ge=0, description="spend at most so much in the run: noise is solved for; 0: as given")
    max_epsilon: float = Field(0.0, ge=0, description="no work, and no round, that would pass it; 0: epsilon, or none")
    min_cohort: int = Field(0, ge=0, description="nothing leaves the server that is of fewer clients")
    ledger: Path | None = Field(None, description="a file for several runs; default: ledger.sqlite in the run's own")
    clipping: Literal["flat", "per-layer", "ghost"] = Field(
        "flat", description="local: an example's whole gradient is clipped, or each tensor; ghost: flat, in less memory"
    )
    fix_modules: bool = Field(
        False, description="replace layers that cannot be trained privately; on the server and all devices"
    )
    clip_quantile: float = Field(0.0, ge=0, lt=1, description="central: share of updates within the clip; 0: fixed")
    mechanism: Literal["gaussian", "banded"] = Field(
        "gaussian", description="central: independent noise, or DP-FTRL's, where participation cannot be sampled"
    )
    bands: int = Field(0, ge=0, description="banded: a client takes part at most once in so many rounds")
    metrics_noise: float = Field(0.0, ge=0, description="central: noise over bound of clients' metrics; 0: none leave")

    @property
    def budget(self) -> float:
        """The epsilon that may be spent; 0: no limit."""
        return self.max_epsilon or self.epsilon

    @model_validator(mode="after")
    def _local(self) -> Self:
        if self.mode == "local" and self.epsilon and self.max_epsilon:
            raise ValueError("expected privacy.epsilon or privacy.max_epsilon, got both: a target is a budget too")
        if self.mode == "local" and not self.epsilon and self.noise_multiplier < _LEAST_NOISE:
            raise ValueError(
                f"expected privacy.noise_multiplier of at least {_LEAST_NOISE:g} with privacy.mode = 'local', got "
                f"{self.noise_multiplier:g}: a single step would spend an epsilon of more than 90"
            )
        return self


class Server(Section):
    """The gRPC port."""

    host: str = Field("127.0.0.1", description="interface to listen on")
    port: int = Field(0, ge=0, le=65535, description="0: any free port")
    cert: Path | None = Field(None, description="TLS certificate chain, PEM")
    key: Path | None = Field(None, description="TLS private key, PEM")
    insecure: bool = Field(False, description="no TLS; loopback addresses need none")
    long_poll_s: float = Field(20.0, ge=0, description="how long a request for work is held")
    chunk_bytes: int = Field(65536, ge=1024, le=1 << 20, description="largest chunk on the wire")
    max_streams: int = Field(8, ge=1, description="uploads read at the same time; others wait")
    memory_mb: int = Field(1024, ge=0, description="MiB of its store for codecs with memory per client, such as ef21")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("expected server.cert and server.key together")
        return self


class Engine(Section):
    """How a simulation runs."""

    name: Literal["inline", "processes", "flower"] = Field("processes", description="one process, or real ones")
    clock: Literal["wall", "virtual"] = Field("wall", description="virtual: inline, in the time that [fleet] describes")
    threads: int = Field(1, ge=1, description="torch threads per client")
    baseline: bool = Field(False, description="also run uncompressed FedAvg with the same seed, inline, to compare")


class Fleet(Section):
    """How fast simulated clients and their links are, in virtual time (engine.clock)."""

    step_s: float = Field(0.05, gt=0, description="seconds per training step of the usual client")
    step_spread: float = Field(0.0, ge=0, le=3, description="of speeds between clients: log-normal sigma; 0: none")
    slow_share: float = Field(0.0, ge=0, le=1, description="share of the clients that are slow on top of that")
    slow_factor: float = Field(10.0, ge=1, description="times a slow client's work takes as long; not its link")
    encode_rate: float = Field(1e7, gt=0, description="parameters per second that the usual client encodes")
    up_rate: float = Field(1e6, gt=0, description="bytes per second that the usual client sends")
    down_rate: float = Field(4e6, gt=0, description="bytes per second that the usual client receives")
    link_spread: float = Field(0.0, ge=0, le=3, description="of links between clients, as step_spread")
    latency_s: float = Field(0.05, ge=0, description="seconds per call, whatever it carries")
    dropout: float = Field(0.0, ge=0, lt=1, description="probability of being away between training and upload")
    away_s: float = Field(60.0, gt=0, description="mean seconds until it comes back, exponentially distributed")
    profiles: Path | None = Field(None, description="CSV, a line per client: client, and its own step_s, up_rate ...")


class Ship(Section):
    """The distilled, quantised model for devices."""

    device_class: str = Field("any", description="which devices it is for")
    epochs: int = Field(60, ge=1, description="passes over the transfer set")
    temperature: float = Field(3.0, gt=0, description="of the teacher's soft targets")
    lr: float = Field(3e-3, gt=0, description="Adam's learning rate for the student")


class Audit(Section):
    """What attacks on the finished run may find: `fedpress audit`."""

    gate: bool = Field(False, description="audit after a simulation, and fail if it finds more than is allowed")
    shadows: int = Field(8, ge=0, description="shadow models of the likelihood ratio attack, an even number; 0: none")
    max_auc: float = Field(0.0, ge=0, le=1, description="most that membership inference may reach; 0: no limit")
    max_epsilon: float = Field(0.0, ge=0, description="most epsilon that may be proven; 0: what the run claims")

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.shadows % 2:
            raise ValueError(
                f"expected an even number, half of which have each example, got audit.shadows = {self.shadows}"
            )
        return self


def _codec(text: str) -> str:
    try:
        parse_codec(text)
    except CodecError as error:
        raise ValueError(str(error)) from error
    return text

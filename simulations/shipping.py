"""``fedpress ship RUN``: from a finished run to a small checked file that devices fetch from its server."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fedpress import plan as plans
from fedpress.compression.models.distil import Progress
from fedpress.compression.models.ship import Shipped, ship
from fedpress.errors import DataError, PlanError
from fedpress.params import from_bytes
from fedpress.server.store import Release, Store
from fedpress.server.strategies import build as build_strategy
from fedpress.simulations.host import STORE_FILE
from fedpress.simulations.problem import Problem


def ship_run(run: Path, device_class: str, progress: Progress | None = None) -> tuple[Path, Shipped, Release]:
    """Distil, quantise, export and check a run's best model; keep it in the run's store as the release for
    ``device_class``.

    Returns the ONNX file's path, what was shipped, and the release. ``device_class`` "" takes the plan's. Raises
    DataError without a finished run, PlanError for a personalized one (its server never holds a whole model).
    """
    plan = plans.load(_existing(run / "plan.toml"))
    problem = Problem(plan)
    if build_strategy(plan).rule(problem.initial.spec).personal:
        raise PlanError(
            "Expected a run whose server holds the whole model, got a personalized one (strategy.personal)."
        )
    teacher = from_bytes(_existing(run / "checkpoints" / "best.safetensors").read_bytes())
    target = device_class or plan.ship.device_class
    settings = plan.ship.model_copy(update={"device_class": target})
    shipped = ship(problem.task, teacher, problem.data.test, plan.run.seed, settings, progress)
    digest = hashlib.sha256(shipped.onnx).hexdigest()
    release = Release(target, digest, "onnx", shipped.metrics, shipped.onnx)
    place = run / f"release-{target}.onnx"
    place.write_bytes(shipped.onnx)
    store = Store(run / STORE_FILE)
    try:
        store.releases.put(release)
    finally:
        store.close()
    return place, shipped, release


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"Expected a run in '{path.parent}', found no {path.name}.")
    return path

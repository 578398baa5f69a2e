"""The house's own laws: imports run one way, heavy libraries stay in their rooms, every package is shipped."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
FLOORS = [
    ["errors"],
    ["params"],
    ["task", "protos"],
    ["torch_model"],
    ["compression"],
    ["sections"],
    ["plan"],
    ["privacy"],
    ["client", "server"],
    ["simulations"],
    ["commands"],
    ["cli"],
]
#: Reads the plan's section [ship], a typed value; everything else in compression knows no plan.
EXCEPT = {("compression/models/ship.py", "sections")}
HEAVY = {
    "torch": {
        "torch_model.py",
        "client/trainers/representation.py",
        "client/trainers/torch_trainer.py",
        "privacy/clipping.py",
        "privacy/local.py",
        "privacy/modules.py",
        "privacy/noise.py",
        "privacy/audit/gradients.py",
        "privacy/audit/inversion.py",
        "compression/models",
        "simulations/tasks",
        "simulations/benchmarks/dp_overhead.py",
        "simulations/benchmarks/zoo/tasks",
        "simulations/engines/warm.py",
        "simulations/audit",
    },
    "opacus": {"privacy", "simulations/benchmarks/dp_overhead.py"},
    "dp_accounting": {"privacy/accountants.py", "privacy/accounting.py"},
    "scipy": {"privacy"},
    "onnx": {"compression/models"},
    "onnxruntime": {"compression/models"},
    "sklearn": {"simulations/benchmarks/zoo/tasks", "simulations/tasks"},
    "matplotlib": {
        "simulations/plots.py",
        "simulations/drawing.py",
        "simulations/report.py",
        "simulations/audit/plots.py",
    },
}


def sources() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(REPO.rglob("*.py")):
        name = path.relative_to(REPO).as_posix()
        top = name.split("/")[0].removesuffix(".py")
        if any(top in floor for floor in FLOORS) and not name.startswith(("build/", ".venv/")):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0  # only absolute imports
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_run_one_way() -> None:
    floor_of = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    seen = 0
    for name, tree in sources():
        room = name.split("/")[0].removesuffix(".py")
        for module in imports(tree):
            parts = module.split(".")
            if parts[0] != "fedpress" or len(parts) < 2 or parts[1] not in floor_of:
                continue
            seen += 1
            if parts[1] != room and (name, parts[1]) not in EXCEPT:
                assert floor_of[parts[1]] < floor_of[room], f"{name} imports {module}"
    assert seen > 300


def test_heavy_libraries_stay_in_their_rooms() -> None:
    for name, tree in sources():
        for module in imports(tree):
            rooms = HEAVY.get(module.split(".")[0])
            assert rooms is None or any(name == r or name.startswith(f"{r}/") for r in rooms), f"{name}: {module}"


def test_every_package_is_listed_for_the_wheel() -> None:
    listed = set(tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    here = {"fedpress." + str(Path(name).parent).replace("/", ".") for name, _ in sources() if "/" in name}
    assert listed == here | {"fedpress"}

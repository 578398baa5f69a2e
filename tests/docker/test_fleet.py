"""docker/: the pieces that can go wrong without Docker at hand. `make fleet` runs the whole."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from fedpress import plan

REPO = Path(__file__).resolve().parents[2]
DOCKER = REPO / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text(encoding="utf-8")


def needs(extras: str) -> list[str]:
    command = [sys.executable, str(DOCKER / "requirements.py"), str(REPO / "pyproject.toml"), extras]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_the_fleet_has_a_service_and_a_vault_for_every_shard_of_the_plan() -> None:
    fleet = plan.load(DOCKER / "fleet.toml")
    clients = re.findall(r"--name client-(\d+) --shard (\d+) .*\n.*vault-(\d+):/vault", COMPOSE)
    assert [tuple(map(int, client)) for client in clients] == [(i + 1, i, i + 1) for i in range(fleet.clients.count)]


def test_the_servers_overrides_are_keys_of_the_plan() -> None:
    overrides = re.findall(r"- ((?:run|server)\.\w+=.*)", COMPOSE)
    fleet = plan.load(DOCKER / "fleet.toml", overrides)
    assert fleet.directory == Path("/runs/fleet")
    assert fleet.server.cert is not None
    assert not fleet.server.insecure


def test_every_service_on_the_hosts_network_is_one_of_the_fleet() -> None:
    host = re.findall(r"^  ([\w-]+):", (DOCKER / "compose.host.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    fleet = re.findall(r"^  ([\w-]+):$", COMPOSE.partition("services:")[2], re.MULTILINE)
    assert sorted([*host, "certificate"]) == sorted(fleet)


def test_a_device_needs_no_torch() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert needs("") == project["dependencies"]
    assert not [need for need in needs("") if need.startswith(("torch", "opacus", "scikit-learn"))]


def test_extras_that_name_extras_are_followed() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    own = [need for extra in ("privacy", "report", "ship", "tasks", "torch") for need in extras[extra]]
    assert sorted(needs("server")) == sorted(project["dependencies"] + own)


def test_no_server_is_not_healthy() -> None:
    health = [sys.executable, str(DOCKER / "health.py"), "localhost:1"]
    ended = subprocess.run(health, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "UNAVAILABLE" in ended.stderr

"""What a machine says of its power, as Linux shows it: batteries, adapters, mice, and machines that say nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedpress.client.conditions import condition
from fedpress.protos import fleet_pb2 as pb

AC_ON, AC_OFF = {"type": "Mains", "online": "1\n"}, {"type": "Mains", "online": "0\n"}
FULL, EMPTYING = {"type": "Battery", "status": "Full\n"}, {"type": "Battery", "status": "Discharging\n"}
MOUSE = {"type": "Battery", "status": "Discharging\n", "scope": "Device\n"}
PORT = {"type": "USB", "online": "0"}


@pytest.mark.parametrize(
    ("supplies", "charging"),
    [
        ([AC_ON, EMPTYING], True),
        ([AC_OFF, EMPTYING], False),
        ([FULL], True),
        ([EMPTYING], False),
        ([AC_ON, PORT, FULL], True),
        ([AC_OFF, {"type": "USB", "online": "1"}, EMPTYING], True),
        ([MOUSE], None),
        ([AC_ON, MOUSE], True),
        ([{"type": "Battery", "status": "Unknown"}], None),
        ([{"type": "Battery"}, {}], None),
        ([], None),
    ],
    ids=str,
)
def test_power_is_what_the_machine_says(tmp_path: Path, supplies: list[dict[str, str]], charging: bool | None) -> None:
    for number, supply in enumerate(supplies):
        (tmp_path / f"s{number}").mkdir()
        for key, value in supply.items():
            (tmp_path / f"s{number}" / key).write_text(value)
    assert condition(supplies=tmp_path) == pb.Condition(charging=charging)


def test_a_link_is_what_the_owner_says_and_nothing_is_known_of_a_machine_without_power_supplies(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    assert condition(supplies=nowhere).ByteSize() == 0
    for said in (True, False):
        assert condition(said, nowhere) == pb.Condition(unmetered=said)

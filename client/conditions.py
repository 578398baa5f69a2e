"""How a device is just now, for servers that ask for mains power or a free link: read where the machine says it.

Power is what Linux shows in ``/sys/class/power_supply``. Whether a link costs money by the byte no kernel knows: the
owner says it. ``busy`` is for programs that know their user, such as an app on a phone; load averages would tell of the
training itself. What is not known is left out, and stands in nobody's way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fedpress.protos import fleet_pb2 as pb

_SUPPLIES: Final = Path("/sys/class/power_supply")
_MAINS: Final = ("Mains", "USB", "Wireless")
#: What batteries say of themselves; "Unknown" says nothing.
_CHARGING: Final = {"Charging": True, "Full": True, "Not charging": True, "Discharging": False}


def condition(unmetered: bool | None = None, supplies: Path = _SUPPLIES) -> pb.Condition:
    """The device's condition. ``unmetered``: what its owner says of the link."""
    return pb.Condition(charging=_charging(supplies), unmetered=unmetered)


def _charging(supplies: Path) -> bool | None:
    """On mains power, or a battery that is not being emptied; None where nothing says so or otherwise."""
    said: list[bool] = []
    for supply in sorted(supplies.glob("*")):
        if _read(supply / "scope") == "Device":  # the battery of a mouse
            continue
        kind = _read(supply / "type")
        if kind in _MAINS and _read(supply / "online") in ("0", "1"):
            said.append(_read(supply / "online") == "1")
        elif kind == "Battery" and _read(supply / "status") in _CHARGING:
            said.append(_CHARGING[_read(supply / "status")])
    return any(said) if said else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""

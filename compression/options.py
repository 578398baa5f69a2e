"""A codec's options are the fields of its dataclass. This is the one place that turns them into text and back.

    uniform:4,stochastic=true,per=channel        id, colon, options with commas between

The first field may be given by position and is always written so; of the others only those that differ from their
default are written. Kinds of options: ``bool``, ``int``, ``float`` and ``Literal`` of strings. A field without a
default is no option but a part: what a wrapper wraps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from fedpress.errors import CodecError, closest

T = TypeVar("T")


def _read_bool(text: str) -> bool:
    return {"true": True, "false": False}[text]


_READ: Final[Mapping[type, Callable[[str], Any]]] = {bool: _read_bool, int: int, float: float}
_EXPECTED: Final[Mapping[type, str]] = {bool: "true or false", int: "an integer", float: "a number"}


class Option(NamedTuple):
    """One option of a codec: ``kind`` is bool, int, float or the tuple of allowed words; ``default`` is as written."""

    name: str
    kind: Any
    default: str

    @property
    def expected(self) -> str:
        """What may be given, for people."""
        return " or ".join(self.kind) if isinstance(self.kind, tuple) else _EXPECTED[self.kind]

    def read(self, text: str) -> Any:
        """The value that ``text`` stands for. Raises KeyError or ValueError."""
        return text if isinstance(self.kind, tuple) else _READ[self.kind](text)

    def admits(self, value: Any) -> bool:
        """True if ``value`` is of this option's kind (an integer is a number, a bool is not)."""
        if isinstance(self.kind, tuple):
            return value in self.kind
        return type(value) is self.kind or (self.kind is float and type(value) is int)


class Options:
    """Base of all codecs: frozen dataclasses whose text form is read off their fields."""

    id: ClassVar[str]

    @property
    def text(self) -> str:
        """The canonical text: ``parse(codec.text) == codec``."""
        words = []
        for position, option in enumerate(options_of(type(self))):
            word = _write(getattr(self, option.name))
            if position == 0:
                words.append(word)
            elif word != option.default:
                words.append(f"{option.name}={word}")
        return f"{self.id}:{','.join(words)}" if words else self.id


def options_of(kind: type[Options]) -> tuple[Option, ...]:
    """The options of a codec's class, in order. Raises TypeError for a field that has no text form."""
    hints = get_type_hints(kind)
    found = []
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # every Options is a dataclass
        if field.default is dataclasses.MISSING:
            continue
        hint = hints[field.name]
        allowed = get_args(hint) if get_origin(hint) is Literal else hint
        if not isinstance(allowed, tuple) and allowed not in _READ:
            raise TypeError(f"{kind.__name__}.{field.name}: no text form for {hint}.")
        found.append(Option(field.name, allowed, _write(field.default)))
    return tuple(found)


def read(kind: type[T], text: str, *parts: Any) -> T:
    """The codec of class ``kind`` of these parts with the options in ``text`` ("4,per=channel"; may be empty).

    Raises CodecError.
    """
    options = {o.name: o for o in options_of(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for position, word in enumerate(text.split(",") if text else ()):
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals and position == 0 and options:
            name, value = next(iter(options)), name
        option = _known(kind, options, name)
        if name in given:
            raise CodecError(f"Expected option '{name}' of '{_id(kind)}' once, got it twice.")
        try:
            given[name] = option.read(value)
        except (KeyError, ValueError) as error:
            raise CodecError(f"Expected {option.expected}, got '{value}' ({_id(kind)}.{name}).") from error
    return build(kind, given, *parts)


def build(kind: type[T], given: Mapping[str, Any], *parts: Any) -> T:
    """The codec of class ``kind`` of these parts with these option values; the rest are defaults. Raises CodecError."""
    options = {o.name: o for o in options_of(kind)}  # type: ignore[arg-type]
    for name, value in given.items():
        option = _known(kind, options, name)
        if not option.admits(value):
            raise CodecError(f"Expected {option.expected}, got {value!r} ({_id(kind)}.{name}).")
    values = {n: float(v) if options[n].kind is float else v for n, v in given.items()}
    return kind(*parts, **values)


def values_of(codec: Options) -> dict[str, Any]:
    """All options of a codec by name."""
    return {o.name: getattr(codec, o.name) for o in options_of(type(codec))}


def _known(kind: type, options: Mapping[str, Option], name: str) -> Option:
    if not options:
        raise CodecError(f"Expected no options for '{_id(kind)}', got '{name}'.")
    if name not in options:
        raise CodecError(f"Unknown option '{name}' of '{_id(kind)}'. {closest(name, options)}")
    return options[name]


def _id(kind: type) -> str:
    return str(kind.id)  # type: ignore[attr-defined]


def _write(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Named tensors, their Spec, flat views and deltas. NumPy only.

A model here is ``Tensors``: names mapped to little-endian float32 arrays. The ``Spec`` says which names, shapes and
dtypes, and of which *kind* each tensor is; both ends of the wire hold it, so that no payload carries a shape.

    weight      is trained: a server's optimiser steps it, privacy clips and noises it
    statistic   a layer keeps it while it trains (running mean and variance, a moving average): it is averaged
    frozen      a parameter that asks for no gradient: it is equal on both ends and never changes
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as _safetensors_load
from safetensors.numpy import save as _safetensors_save

from fedpress.errors import SpecError

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]

#: What travels is float32; other float dtypes are cast by the trainer before they get here.
DTYPES = ("float32",)
#: What a tensor is to training. See the module's docstring.
Kind: TypeAlias = Literal["weight", "statistic", "frozen"]
#: All kinds, in the order of their numbers on the wire.
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class TensorSpec(NamedTuple):
    """Name, shape, dtype and kind of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    kind: Kind = "weight"

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Spec:
    """The ordered names, shapes, dtypes and kinds of a model's tensors."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [t.name for t in self.tensors]
        if len(set(names)) != len(names):
            raise SpecError(f"Expected distinct tensor names, got {names}.")
        for t in self.tensors:
            if t.dtype not in DTYPES:
                raise SpecError(f"Expected dtype float32 for tensor '{t.name}', got {t.dtype}.")
            if any(d < 0 for d in t.shape):
                raise SpecError(f"Expected non-negative dimensions for tensor '{t.name}', got {t.shape}.")
            if t.kind not in KINDS:
                raise SpecError(f"Expected one of {', '.join(KINDS)} as the kind of tensor '{t.name}', got {t.kind!r}.")

    @classmethod
    def of(cls, tensors: Tensors, kinds: Mapping[str, Kind] = MappingProxyType({})) -> Spec:
        """The spec of given tensors, in their order. ``kinds``: by name; a tensor that is not named is a weight."""
        return cls(
            tuple(TensorSpec(n, tuple(a.shape), str(a.dtype), kinds.get(n, "weight")) for n, a in tensors.items())
        )

    @classmethod
    def from_json(cls, text: str) -> Spec:
        """Inverse of ``to_json``. Raises SpecError."""
        try:
            rows = json.loads(text)
            if not isinstance(rows, list):
                raise TypeError("not a list")
            return cls(tuple(TensorSpec(str(n), tuple(int(d) for d in s), str(t), *k) for n, s, t, *k in rows))
        except (ValueError, TypeError) as error:
            raise SpecError(f"Expected a JSON list of [name, shape, dtype, kind?], got {text[:80]!r}.") from error

    def to_json(self) -> str:
        """Canonical JSON, the input of ``hash``: ``[name, shape, dtype]`` of a weight, and the kind of all else."""
        rows = [[t.name, list(t.shape), t.dtype, *([t.kind] if t.kind != "weight" else ())] for t in self.tensors]
        return json.dumps(rows, separators=(",", ":"))

    def __iter__(self) -> Iterator[TensorSpec]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tensor names in order."""
        return tuple(t.name for t in self.tensors)

    def named(self, *kinds: Kind) -> tuple[str, ...]:
        """The names of all tensors of these kinds, in order."""
        return tuple(t.name for t in self.tensors if t.kind in kinds)

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of every tensor that is no weight, by name: what ``of`` takes."""
        return {t.name: t.kind for t in self.tensors if t.kind != "weight"}

    @cached_property
    def size(self) -> int:
        """Number of parameters."""
        return sum(t.size for t in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of the uncompressed model (4 per parameter)."""
        return 4 * self.size

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def without(self, patterns: Iterable[str]) -> Spec:
        """The spec less every tensor whose name matches one of the shell patterns (``head.*``).

        Raises SpecError for a pattern that matches nothing, listing the tensors there are.
        """
        dropped = set(self.matching(patterns))
        return Spec(tuple(t for t in self.tensors if t.name not in dropped))

    def matching(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """Names that match any of the shell patterns, in spec order. Raises SpecError as ``without`` does."""
        found: set[str] = set()
        for pattern in patterns:
            hits = fnmatch.filter(self.names, pattern)
            if not hits:
                raise SpecError(
                    f"Expected a pattern that matches a tensor, got '{pattern}'. The tensors: {', '.join(self.names)}."
                )
            found.update(hits)
        return tuple(n for n in self.names if n in found)

    def check(self, tensors: Tensors, what: str = "tensors") -> None:
        """Raise SpecError unless ``tensors`` has exactly these names, shapes and dtypes."""
        if tuple(tensors) != self.names:
            missing, extra = set(self.names) - set(tensors), set(tensors) - set(self.names)
            detail = f"missing {sorted(missing)}, unexpected {sorted(extra)}" if missing or extra else "another order"
            raise SpecError(f"Expected {what} to match the model's spec, got {detail}.")
        for t in self.tensors:
            array = tensors[t.name]
            if tuple(array.shape) != t.shape or str(array.dtype) != t.dtype:
                raise SpecError(
                    f"Expected {what} '{t.name}' as {t.dtype}{list(t.shape)}, got {array.dtype}{list(array.shape)}."
                )


@dataclass(frozen=True)
class Model:
    """A whole model before round 1: its floating-point state ``tensors``, of ``spec``.

    ``unsent``: the rest of its state, integers and booleans. Each end has it from the run's seed; checkpoints hold it.
    """

    spec: Spec
    tensors: Tensors
    unsent: Tensors = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Tensors) -> Model:
        """A model of weights alone."""
        return cls(Spec.of(tensors), tensors)


def zeros(spec: Spec) -> dict[str, Array]:
    """A model of zeros."""
    return unflatten(np.zeros(spec.size, np.float32), spec)


def flatten(tensors: Tensors) -> NDArray[np.float32]:
    """All tensors as one new float32 vector, in their order."""
    if not tensors:
        return np.zeros(0, np.float32)
    return np.concatenate([np.ravel(a) for a in tensors.values()]).astype(np.float32, copy=False)


def unflatten(vector: NDArray[np.float32], spec: Spec) -> dict[str, Array]:
    """Views of one vector as the tensors of ``spec``; no copy. Raises SpecError on another length."""
    if vector.size != spec.size:
        raise SpecError(f"Expected a vector of {spec.size} parameters, got {vector.size}.")
    out: dict[str, Array] = {}
    at = 0
    for t in spec:
        out[t.name] = vector[at : at + t.size].reshape(t.shape)
        at += t.size
    return out


def subtract(new: Tensors, base: Tensors) -> dict[str, Array]:
    """``new - base``, tensor by tensor: the delta that travels. One IEEE operation per element."""
    return {n: np.subtract(a, base[n]) for n, a in new.items()}


def add(base: Tensors, delta: Tensors) -> dict[str, Array]:
    """``base + delta``, tensor by tensor. One IEEE operation per element: the same bits on every platform."""
    return {n: np.add(a, delta[n]) for n, a in base.items()}


def content_hash(tensors: Tensors) -> str:
    """SHA-256, hex, over the hash of the spec without kinds and the little-endian bytes of every tensor: the name of a
    model version."""
    digest = hashlib.sha256(Spec.of(tensors).hash.encode())
    for array in tensors.values():
        digest.update(np.ascontiguousarray(array, dtype="<f4").data)
    return digest.hexdigest()


def finite(tensors: Tensors) -> bool:
    """True if no element is NaN or infinite."""
    return all(bool(np.isfinite(a).all()) for a in tensors.values())


def to_bytes(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors as safetensors bytes."""
    arrays = {n: np.asarray(a, order="C") for n, a in tensors.items()}  # ascontiguousarray makes scalars 1-d
    return bytes(_safetensors_save(arrays, metadata=dict(metadata) if metadata else None))


def from_bytes(data: bytes) -> dict[str, Array]:
    """Inverse of ``to_bytes`` (names come back sorted by safetensors, so callers reorder by Spec). Raises SpecError."""
    try:
        return dict(_safetensors_load(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise SpecError(f"Expected safetensors bytes, got {len(data)} bytes that do not parse: {error}.") from error


def ordered(tensors: Tensors, spec: Spec) -> dict[str, Array]:
    """``tensors`` in the spec's order, checked against it. Raises SpecError."""
    if set(tensors) >= set(spec.names):
        tensors = {n: tensors[n] for n in spec.names}
    spec.check(tensors)
    return dict(tensors)

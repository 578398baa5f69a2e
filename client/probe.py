"""What a simulation may watch of a device: each update as its codec gets it.

Nothing of it is sent: the server has no message for it. Real devices run without a probe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from fedpress.compression.codec import Codec, Context, State
from fedpress.compression.stream import Stream
from fedpress.params import Tensors


class Encoding(NamedTuple):
    """The arguments of the call that makes a payload. ``rng`` is the probe's own, at the same position."""

    codec: Codec
    delta: Tensors
    state: State
    context: Context
    rng: Stream


Probe: TypeAlias = Callable[[Encoding], object]

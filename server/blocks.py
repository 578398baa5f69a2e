"""Codecs that work on blocks of numbers, held against the model: a block must not be larger than all of it.

A block ends with its tensor, so that small tensors beside large ones are coded as they are; but where all tensors
together do not fill a block, the codec is one for other models.
"""

from __future__ import annotations

from fedpress.compression.registry import parse, stages
from fedpress.errors import PlanError
from fedpress.params import Spec
from fedpress.plan import Plan
from fedpress.server.choice import possible


def check_blocks(plan: Plan, travels: Spec) -> None:
    """Raise PlanError for a codec of the plan with blocks of more numbers than the weights of ``travels`` have."""
    size = sum(t.size for t in travels if t.kind == "weight")
    for key, settings in (("upload.codec", plan.upload), ("download.codec", plan.download)):
        for text in possible(settings):
            large = [stage for stage in stages(parse(text)) if stage.block_size > size]
            if size and large:
                raise PlanError(
                    f"Expected blocks of at most the {size} numbers that travel of this model, got "
                    f"{large[0].block_size} in '{text}' ({key}). Give '{large[0].id}' a smaller one, or set {key} to "
                    "another codec, such as 'nmse:0.5'."
                )

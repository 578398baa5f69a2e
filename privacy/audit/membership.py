"""Who was in the training data, by how sure the model is of them.

    loss threshold    an example with a small loss is a member (Yeom, Giacomelli, Fredrikson, Jha 2018)
    likelihood ratio  the same confidence, beside that of shadow models with the example and without it: LiRA, the
                      online attack with one variance for all examples, which is what few shadows allow
                      (Carlini, Chien, Nasr, Song, Terzis, Tramer 2022, section V and figure 9)

Confidence is logit-scaled, log(p / (1 - p)), which is close to normal over models. NumPy only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import PrivacyError
from fedpress.privacy.audit.roc import Scores

_SMALLEST: Final = 1e-12
_LARGEST: Final = 500.0  # exp of it is still a number


def confidence(losses: Scores) -> Scores:
    """log(p / (1 - p)) of cross-entropy losses -log p, float64[n]; for other losses, any falling function will do."""
    bounded = np.clip(losses, _SMALLEST, _LARGEST)
    scaled: Scores = -np.log(np.expm1(bounded))
    return scaled


def likelihood_ratio(target: Scores, shadows: Scores, inside: NDArray[np.bool_]) -> Scores:
    """log of how much likelier each of ``target[n]`` is of a model that saw the example than of one that did not.

    ``shadows[k, n]``: the confidence of shadow model k in example n; ``inside[k, n]``: it had the example. Raises
    PrivacyError unless every example was in some shadow and out of some, and there are two shadows at least.
    """
    if len(shadows) < 2 or not (inside.any(axis=0) & (~inside).any(axis=0)).all():
        raise PrivacyError("Expected every example to be in at least one shadow model and out of at least one.")
    with_it, without = _fitted(shadows, inside), _fitted(shadows, ~inside)
    return _log_density(target, *with_it) - _log_density(target, *without)


def _fitted(shadows: Scores, chosen: NDArray[np.bool_]) -> tuple[Scores, float]:
    """Each example's mean over the chosen shadows, and the standard deviation around it over all examples."""
    count = chosen.sum(axis=0)
    mean = np.where(chosen, shadows, 0.0).sum(axis=0) / count
    squares = float((np.where(chosen, shadows - mean, 0.0) ** 2).sum())
    free = max(1, int(chosen.sum()) - chosen.shape[1])
    return mean, max(1e-6, (squares / free) ** 0.5)


def _log_density(x: Scores, mean: Scores, deviation: float) -> Scores:
    density: Scores = -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation)
    return density

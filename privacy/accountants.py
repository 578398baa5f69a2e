"""What central noise costs: a history of noisy releases, and the epsilon of (epsilon, delta)-privacy it amounts to.

A ``Charge`` is one or more releases alike: Gaussian noise on a sum to which each client adds a vector no longer than a
bound. Two accountants turn charges into an epsilon; both give upper bounds.

- ``pld``, the statement: privacy loss distributions (Koskela, Jaelkoe, Honkela 2020), discretised pessimistically by
  "connect the dots" (Doroshenko et al. 2022), in Google's dp-accounting.
- ``rdp``, the cross-check: Renyi privacy (Mironov, Talwar, Zhang 2019; without replacement: Wang, Balle,
  Kasiviswanathan 2019), in dp-accounting too.

How the clients of a release were drawn decides against what the promise is made.

- ``poisson``: each client by itself, with chance ``rate``. Adding or removing one client. The sum moves by the bound.
- ``fixed``: ``rate`` is n/N, n of N clients without replacement. The size is no secret, so the promise is about
  replacing one client by another, and the sum moves by twice the bound: all noise counts half. dp-accounting has no
  loss distribution for it; ours is that of the pair which dominates it (Zhu, Dong, Wang 2022, proposition 30), from
  the bound of Balle, Barthe, Gaboardi 2018, theorem 9. That bound is attained in either direction, by all other
  clients sending the opposite of the replaced one's; composing both at once costs some ten or twenty per cent more.
- ``none``: the client was in it, or may have been: no amplification. Adding or removing one client.

A history with any ``fixed`` charge is stated for replacing one client as a whole. Unsampled charges then count half
their noise. Poisson charges are bounded by the same pair as ``fixed`` at the same rate (replacing is removing and
adding, so sums with and without the client are closer still), and by RDP as if unsampled, for want of a theorem.

A history that is unsampled throughout is one Gaussian, whose epsilon is exact (Balle and Wang 2018).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from types import ModuleType
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import MissingExtra, PrivacyError

Sampling: TypeAlias = Literal["poisson", "fixed", "none"]
Accountant: TypeAlias = Literal["pld", "rdp"]

SAMPLINGS: Final = ("poisson", "fixed", "none")
#: Above this, epsilon promises nothing and exp(epsilon) soon overflows: loss distributions are not asked any more.
_MEANINGLESS: Final = 500.0
#: Standard deviations beyond which a Gaussian's mass (2^-75) is counted as if it gave everything away.
_TAIL: Final = 10.0
#: Intervals that losses are rounded to, at most: beyond, time and memory would be without bound.
_BINS: Final = 200_000
#: What rounding may take off a Renyi divergence; below nothing, the library would take it for perfect privacy.
_ROUNDING: Final = 1e-15
#: ``noise_for``: the answer is at most this much (relative) above the least noise, and noise is sought up to there.
_TIGHT: Final = 1e-3
_MOST_NOISE: Final = 2.0**20
_LEAST_NOISE: Final = 2.0**-6


class Charge(NamedTuple):
    """``times`` releases alike. ``noise_multiplier``: the noise's standard deviation over the bound of one client's
    contribution. ``rate``: the chance of one client to be in a release; 1.0 where ``sampling`` is ``none``."""

    noise_multiplier: float
    sampling: Sampling
    rate: float = 1.0
    times: int = 1


Charges: TypeAlias = tuple[Charge, ...]


def checked(charge: Charge) -> Charge:
    """``charge``, if it means something. Raises PrivacyError with the reason."""
    if not (charge.noise_multiplier > 0 and math.isfinite(charge.noise_multiplier)):
        raise PrivacyError(f"Expected noise, a finite noise multiplier > 0, got {charge.noise_multiplier!r}.")
    if charge.sampling not in SAMPLINGS:
        raise PrivacyError(f"Expected sampling to be one of {', '.join(SAMPLINGS)}, got {charge.sampling!r}.")
    if not 0 < charge.rate <= 1:
        raise PrivacyError(f"Expected a sampling rate in (0, 1], got {charge.rate!r}.")
    if charge.sampling == "none" and charge.rate != 1:
        raise PrivacyError(f"Expected no sampling rate where nothing is sampled, got {charge.rate!r}.")
    if charge.times < 1:
        raise PrivacyError(f"Expected a charge for at least one release, got {charge.times!r}.")
    return charge


def extended(charges: Charges, charge: Charge) -> Charges:
    """``charges`` with ``charge`` added; charges of like kind stay one. The order of releases costs nothing."""
    checked(charge)
    for place, known in enumerate(charges):
        if known[:3] == charge[:3]:
            return (*charges[:place], known._replace(times=known.times + charge.times), *charges[place + 1 :])
    return (*charges, charge)


def merged(charges: Iterable[Charge]) -> Charges:
    """All ``charges``, one per kind, in an order that depends on nothing else."""
    found: Charges = ()
    for charge in charges:
        found = extended(found, charge)
    return tuple(sorted(found))


def epsilon(charges: Iterable[Charge], delta: float, accountant: Accountant = "pld") -> float:
    """The epsilon of (epsilon, delta)-differential privacy that ``charges`` amount to together; 0.0 for none.

    An upper bound. ``pld`` is never above ``rdp``, and within 1e-3 (relative) of what its loss distributions amount to
    undiscretised, for any number of releases that a federation can have. Raises PrivacyError for charges or a delta
    that mean nothing, MissingExtra without dp-accounting.
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"Expected 0 < delta < 1, got {delta!r}.")
    kinds = merged(charges)
    return _ACCOUNTANTS[accountant](kinds, delta) if kinds else 0.0


def noise_for(target: float, delta: float, charges_of: Callable[[float], Sequence[Charge]]) -> float:
    """The least noise multiplier z with ``epsilon(charges_of(z), delta) <= target``: never less, and at most 1e-3
    (relative) more. More noise must not cost more. Raises PrivacyError where no noise is enough."""
    _library()  # says what is missing, where scipy is too
    from scipy.optimize import brentq

    if not (target > 0 and math.isfinite(target)):
        raise PrivacyError(f"Expected a finite epsilon > 0 to find the noise for, got {target!r}.")

    def over(log_noise: float) -> float:
        return epsilon(charges_of(math.exp(log_noise)), delta) - target

    low, high = 0.0, 0.0
    while over(high) > 0:
        if high > math.log(_MOST_NOISE):
            raise PrivacyError(
                f"No noise multiplier up to {_MOST_NOISE:g} brings epsilon down to {target:g} at delta {delta:g}: "
                "allow a greater epsilon, or fewer rounds."
            )
        low, high = high, high + math.log(2)
    while low == high or over(low) <= 0:
        if low < math.log(_LEAST_NOISE):
            return math.exp(low)
        low, high = low - math.log(2), min(high, low)
    found: float = brentq(over, low, high, xtol=_TIGHT / 4, rtol=1e-9) + _TIGHT / 4
    while over(found) > 0:  # discretisation is monotone only up to its own error
        found += _TIGHT / 4
    return math.exp(found)


# -- the two accountants ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 16)
def _by_rdp(charges: Charges, delta: float) -> float:
    replace = _replacing(charges)
    curve = sum(c.times * _renyi(_noise(c, replace), c.sampling, c.rate, replace) for c in charges)
    spent, _ = _library().rdp.compute_epsilon(_orders(), curve, delta)
    return float(spent)


@lru_cache(maxsize=1 << 16)
def _by_pld(charges: Charges, delta: float) -> float:
    """By loss distributions, or what is smaller and holds too: RDP, or the exact epsilon of the same without sampling.
    Those take over where loss distributions end (tiny deltas, huge epsilons)."""
    library = _library()
    replace = _replacing(charges)
    sampled = [c for c in charges if c.sampling != "none" and c.rate < 1]
    with np.errstate(divide="ignore"):  # a delta that is 0 in float64 has logarithm -inf, and that is handled
        bound = float(library.get_epsilon_gaussian(_as_one(charges, replace), delta))
    if not sampled:
        return bound
    bound = min(bound, _by_rdp(charges, delta))
    if bound == 0 or bound > _MEANINGLESS:
        return bound
    losses = library.pld.privacy_loss_distribution
    largest = max(_largest(_noise(c, replace), c.rate) for c in sampled)
    grid = _grid(bound, sum(c.times for c in sampled), largest)
    total = losses.identity(value_discretization_interval=grid)
    unsampled = [c for c in charges if c not in sampled]
    if unsampled:
        total = losses.from_gaussian_mechanism(_as_one(unsampled, replace), value_discretization_interval=grid)
    for c in sampled:
        one = (
            losses.PrivacyLossDistribution(_replacing_one(_noise(c, replace), c.rate, grid))
            if replace
            else losses.from_gaussian_mechanism(
                c.noise_multiplier, value_discretization_interval=grid, sampling_prob=c.rate
            )
        )
        total = total.compose(one.self_compose(c.times))
    return min(bound, float(total.get_epsilon_for_delta(delta)))


_ACCOUNTANTS: Final[dict[Accountant, Callable[[Charges, float], float]]] = {"pld": _by_pld, "rdp": _by_rdp}


def _replacing(charges: Charges) -> bool:
    """Whether the promise is about replacing a client, not about adding or removing one."""
    return any(c.sampling == "fixed" for c in charges)


def _noise(charge: Charge, replace: bool) -> float:
    """Noise over how far one client moves the sum: by the bound, or by twice the bound where it is replaced."""
    return charge.noise_multiplier / 2 if replace else charge.noise_multiplier


def _as_one(charges: Iterable[Charge], replace: bool) -> float:
    """The noise of the one Gaussian release that tells as much as these do together, were none of them sampled."""
    return 1 / math.sqrt(sum(c.times / _noise(c, replace) ** 2 for c in charges))


def _grid(bound: float, steps: int, largest: float) -> float:
    """The interval that losses are rounded to, for an epsilon of about ``bound`` and losses up to ``largest`` a step.

    Rounding adds less than ``steps * grid**2`` to epsilon (measured): this keeps it near 1e-4 of epsilon, in a tenth of
    the time that the library's fixed 1e-4 takes. Where that would be more than ``_BINS`` intervals, they get longer.
    """
    small = min(bound, 10.0)  # a bound may be much too high, and what is above ten needs no more digits
    return max(min(1e-3 * small, math.sqrt(2e-4 * small / steps)), max(largest, 2 * bound) / _BINS)


def _largest(noise: float, rate: float) -> float:
    """The largest loss of one sampled release that is not counted as giving everything away."""
    apart = 1 / noise
    return math.log1p(rate * math.expm1(min(apart * apart / 2 + _TAIL * apart, 700.0)))


def _replacing_one(noise: float, rate: float, grid: float) -> object:
    """The loss distribution of one release, n of N clients without replacement, for replacing one client.

    With P, Q the Gaussians that the replaced client moves apart: delta(epsilon) is at most that of
    ``rate * P + (1 - rate) * Q`` against Q, in either direction, so for epsilon >= 0 ::

        delta(epsilon) = rate * delta_PQ(log(1 + (exp(epsilon) - 1) / rate))

    and ``delta(-epsilon) = 1 - exp(-epsilon) * (1 - delta(epsilon))`` by symmetry.
    """
    from scipy.special import log_ndtr

    apart = 1 / noise
    steps = math.ceil(_largest(noise, rate) / grid)
    losses = grid * np.arange(steps + 1)
    inner = np.log1p(np.expm1(losses) / rate)
    exceed = np.exp(log_ndtr(apart / 2 - inner / apart)) - np.exp(inner + log_ndtr(-apart / 2 - inner / apart))
    above = np.minimum.accumulate(rate * np.clip(exceed, 0.0, 1.0))
    below = 1 - np.exp(-losses) * (1 - above)
    deltas = np.concatenate([below[:0:-1], above])
    return _library().pld.pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(grid, -steps, steps, deltas)


@lru_cache(maxsize=1024)
def _renyi(noise: float, sampling: Sampling, rate: float, replace: bool) -> NDArray[np.float64]:
    """Renyi divergence of one release at ``_orders``, float64: never less than it is; infinite if not known."""
    dp = _library()
    gauss = dp.GaussianDpEvent(noise)
    relation = dp.NeighboringRelation.REPLACE_ONE if replace else dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    event = gauss
    if sampling == "fixed":
        event = dp.SampledWithoutReplacementDpEvent(*_cohort(rate), gauss)
    elif sampling == "poisson" and not replace:
        event = dp.PoissonSampledDpEvent(rate, gauss)
    curve: NDArray[np.float64] = dp.rdp.RdpAccountant(neighboring_relation=relation).compose(event).rdp
    curve = curve + _ROUNDING
    return np.where(curve > 0, curve, np.inf)


def _cohort(rate: float) -> tuple[float, float]:
    """N and n with n/N = ``rate``: the library reads only their quotient."""
    return 1.0, rate


def _orders() -> NDArray[np.float64]:
    """The Renyi orders that divergences are computed at."""
    orders: NDArray[np.float64] = _library().rdp.RdpAccountant().orders
    return orders


@cache
def _library() -> ModuleType:
    """dp-accounting, which takes a second to import: only what accounts for central noise pays it."""
    try:
        import dp_accounting
    except ModuleNotFoundError as error:  # pragma: no cover - the base install
        raise MissingExtra("Accounting for central privacy", "privacy") from error
    # Orders at which a series does not converge are left out of the minimum over orders, which holds without them.
    logging.getLogger("absl").addFilter(lambda record: "_compute_log_a_frac failed" not in str(record.msg))
    module: ModuleType = dp_accounting
    return module

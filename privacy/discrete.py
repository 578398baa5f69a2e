"""The discrete Gaussian: Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy", algorithms
1-3.

An integer x with probability proportional to exp(-x^2 / 2 sigma^2). Added to an integer of sensitivity D it is at most
as revealing as the continuous Gaussian added to a real one, in every Renyi order and so in concentrated differential
privacy (their proposition 5), and there is no floating point in what is released.

**How.** With t = sigma + 1: u uniform in 0 ... t-1, v geometric with P(v >= k) = exp(-k), x = u + t v, a sign, and x is
kept with chance exp(-g), g = x^2 / 2 sigma^2 - v + sigma^2 / 2 t^2. That is the paper's chain of rejections with the
coins of algorithms 2 and 3 thrown as one: exp(-u/t) times exp(-(x - sigma^2/t)^2 / 2 sigma^2).

**Exact.** A coin of chance exp(-g) compares a uniform real number, of which 64 bits are drawn, with exp(-g). In float64
that comparison is wrong by less than 2^-44 (proof at ``_heads``); only farther away does it decide. In between, once in
2^43 coins, more bits are drawn and compared with exp(-g) to as many digits as it takes, which for a rational g is
certain to end. Geometric numbers compare words with a table of integers in the same way. So the law is the stated one,
not an approximation of it. Deviation: this in place of the series of their algorithm 1, because it vectorises.

The time a draw takes is random and not hidden: who can time the server to the microsecond is outside the threat model.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedpress.errors import PrivacyError
from fedpress.privacy.noise import Noise

#: The largest sigma: u + t v stays below 2^53 and so is exact in float64.
LARGEST: Final = 1 << 46
_BLOCK: Final = 1 << 16
_TRIALS: Final = 2.2  # a little more than the mean number of draws per number that is kept
_MARGIN: Final = 2.0**-44


def discrete_gaussian(noise: Noise, n: int, sigma: int) -> NDArray[np.int64]:
    """int64[n], independent, of mean 0 and variance (at most) ``sigma``^2. Raises PrivacyError for sigma outside
    1 ... 2^46."""
    if not 1 <= sigma <= LARGEST:
        raise PrivacyError(f"Expected 1 <= sigma <= 2^46 grid steps of noise, got {sigma}.")
    out = np.empty(n, np.int64)
    have = 0
    while have < n:
        kept = _draw(noise, min(_BLOCK, int(_TRIALS * (n - have)) + 16), sigma, _MARGIN)[: n - have]
        out[have : have + kept.size] = kept
        have += kept.size
    return out


def _draw(noise: Noise, trials: int, sigma: int, margin: float) -> NDArray[np.int64]:
    """Those of so many draws that are kept. With a margin of 1 every coin is decided by the digits."""
    t = sigma + 1
    u = noise.below(2 * t, trials)
    v = _geometric(noise, trials)
    x = (u >> 1) + t * v
    minus = (u & 1).astype(np.bool_)
    kept = _heads(noise, x, v, sigma, margin) & ~(minus & (x == 0))  # zero has one sign only
    signed: NDArray[np.int64] = np.where(minus, -x, x)[kept]
    return signed


def _heads(noise: Noise, x: NDArray[np.int64], v: NDArray[np.int64], sigma: int, margin: float) -> NDArray[np.bool_]:
    """Coins of chance exp(-g).

    In float64, g is off by at most 2^-50 (x^2 / 2 sigma^2 + v + 1), and g >= (x / sigma - sigma / t)^2 / 2 since
    v <= x / t, so that exp(-g) is off by at most 2^-47; the exponential itself by a few units of 2^-53, the word as a
    float by 2^-53.
    """
    t = sigma + 1
    ratio = x / sigma
    chance = np.exp(v - 0.5 * ratio * ratio - 0.5 * (sigma / t) ** 2)
    words = noise.words(x.size)
    apart = chance - words * 2.0**-64
    heads: NDArray[np.bool_] = apart > 0
    for i in (np.abs(apart) <= margin).nonzero()[0]:
        a, k = int(x[i]), int(v[i])
        numerator = a * a * t * t - 2 * k * sigma * sigma * t * t + sigma**4
        heads[i] = _Uniform(int(words[i]), noise).below_exp(numerator, 2 * sigma * sigma * t * t)
    return heads


def _geometric(noise: Noise, n: int) -> NDArray[np.int64]:
    """int64[n] with P(v >= k) = exp(-k): how many of exp(-1), exp(-2) ... a uniform number is below."""
    words = noise.words(n)
    at = _POWERS.searchsorted(words, side="right")
    v = _POWERS.size - at
    for i in (_POWERS[at - 1] == words).nonzero()[0]:  # the word alone does not say
        v[i] = _Uniform(int(words[i]), noise).geometric()
    return v


class _Uniform:
    """A uniform real number in [0, 1), of which as many bits are drawn as decisions take."""

    def __init__(self, word: int, noise: Noise) -> None:
        self._known, self._bits, self._noise = word, 64, noise

    def below_exp(self, numerator: int, denominator: int) -> bool:
        """Whether it is below exp(-numerator / denominator)."""
        while True:
            floor = _scaled_exp(numerator, denominator, self._bits)
            if self._known + 1 <= floor - 1:
                return True
            if self._known >= floor + 2:
                return False
            self._known = self._known << 64 | int(self._noise.words(1)[0])
            self._bits += 64

    def geometric(self) -> int:
        """How many of exp(-1), exp(-2) ... it is below."""
        count = 0
        while self.below_exp(count + 1, 1):
            count += 1
        return count


def _scaled_exp(numerator: int, denominator: int, bits: int) -> int:
    """floor(exp(-numerator / denominator) 2^bits), or one beside it.

    The decimal module rounds the exponential correctly; with 10 digits to spare the roundings of the quotient, of the
    exponential and of the product come to less than 10^-8 at this scale.
    """
    context = Context(prec=bits // 3 + 10)
    value = context.exp(context.divide(Decimal(-numerator), Decimal(denominator)))
    return int(context.multiply(value, Decimal(1 << bits)))


#: floor(exp(-k) 2^64) for k = 45 ... 1: ascending, the first one 0.
_POWERS: Final = np.array([_scaled_exp(k, 1, 128) >> 64 for k in range(45, 0, -1)], np.uint64)

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from opacus.accountants import RDPAccountant

from fedpress.errors import BudgetSpent, PrivacyError
from fedpress.privacy.accounting import (
    ORDERS,
    History,
    Steps,
    afford,
    by_dp_accounting,
    by_opacus,
    epsilon,
    extended,
    from_json,
    noise_for,
    to_json,
)

DELTA = 1e-5


def test_epsilon_is_opacus_own_step_by_step() -> None:
    accountant = RDPAccountant()
    history: History = ()
    for noise, rate, steps in ((1.0, 0.05, 40), (1.0, 0.05, 20), (0.8, 0.1, 10)):
        for _ in range(steps):
            accountant.step(noise_multiplier=noise, sample_rate=rate)
        history = extended(history, Steps(noise, rate, steps))
        assert epsilon(history, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-12)
    assert history == (Steps(1.0, 0.05, 60), Steps(0.8, 0.1, 10))


def test_nothing_spent_is_nothing() -> None:
    assert epsilon((), DELTA) == 0.0
    assert extended((), Steps(1.0, 0.1, 0)) == ()


def test_order_does_not_matter_and_more_steps_cost_more() -> None:
    one, two = Steps(1.0, 0.1, 10), Steps(2.0, 0.5, 3)
    assert epsilon((one, two), DELTA) == pytest.approx(epsilon((two, one), DELTA), rel=1e-12)
    assert epsilon((one,), DELTA) < epsilon((one, two), DELTA)


def test_like_steps_are_one_entry_wherever_they_are() -> None:
    one, two = Steps(1.0, 0.1, 10), Steps(2.0, 0.5, 3)
    assert extended((one, two), one) == (one._replace(steps=20), two)


@pytest.mark.parametrize(("noise", "rate"), [(0.4, 0.02), (1.0, 0.1), (0.7, 0.5), (3.0, 1.0)])
def test_both_libraries_agree(noise: float, rate: float) -> None:
    """To 1e-6 at whole orders. Between them dp-accounting adds up the sizes of terms that have signs: never less."""
    pytest.importorskip("dp_accounting")
    one, other = by_opacus(noise, rate), by_dp_accounting(noise, rate)
    whole = np.round(ORDERS) == ORDERS
    np.testing.assert_allclose(one[whole], other[whole], rtol=1e-6)
    assert (other >= one * (1 - 1e-6)).all()


WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "opacus"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
from fedpress.privacy.accounting import Steps, epsilon, noise_for
one = Steps(1.0, 0.25, 40)
print(repr(epsilon((one, Steps(2.0, 1.0, 3)), 1e-5)), repr(noise_for(3.0, 1e-5, (one,))))
"""


def test_a_device_without_torch_states_as_much() -> None:
    pytest.importorskip("dp_accounting")
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    spent, noise = map(float, done.stdout.split())
    assert 1 <= spent / epsilon((Steps(1.0, 0.25, 40), Steps(2.0, 1.0, 3)), 1e-5) < 1.01
    assert noise == pytest.approx(noise_for(3.0, 1e-5, (Steps(1.0, 0.25, 40),)), rel=1e-3)


def test_noise_is_solved_for_and_hardly_more_than_needed() -> None:
    for target in (0.5, 3.0):
        for work in ((Steps(1.0, 0.05, 500),), (Steps(1.0, 0.25, 40), Steps(1 / math.sqrt(5), 0.25, 20))):
            noise = noise_for(target, DELTA, work)
            costs = [
                epsilon([w._replace(noise_multiplier=z * w.noise_multiplier) for w in work], DELTA)
                for z in (noise, noise / 1.0011)
            ]
            assert costs[0] <= target < costs[1]
            assert costs[0] > 0.99 * target


def test_a_target_that_no_noise_reaches_is_refused_and_a_loose_one_takes_the_least_noise_there_is() -> None:
    with pytest.raises(PrivacyError, match=r"No noise brings epsilon down to 0\.01 .* \(privacy\.epsilon\)"):
        noise_for(0.01, DELTA, (Steps(1.0, 0.1, 10),))
    assert noise_for(1e4, DELTA, (Steps(1.0, 0.1, 10),)) == 0.25


def test_a_budget_is_refused_exactly_when_it_would_be_passed() -> None:
    step = Steps(1.0, 0.1, 10)
    after_two = epsilon(extended((step,), step), DELTA)
    afford((step,), step, DELTA, after_two)
    afford((step,), step, DELTA, 0.0)
    with pytest.raises(BudgetSpent, match=r"past this device's budget of .* \(privacy\.max_epsilon\)"):
        afford((step,), step, DELTA, after_two * 0.999)


def test_json_round_trip() -> None:
    history = (Steps(1.1, 1 / 3, 60), Steps(0.8, 1.0, 10))
    assert from_json(to_json(history)) == history
    assert from_json(to_json(())) == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"steps": [[1, 2]]}', '{"steps": [[0, 0.5, 1]]}', '{"steps": 3}'])
def test_a_history_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PrivacyError):
        from_json(text)

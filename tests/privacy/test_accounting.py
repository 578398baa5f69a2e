from __future__ import annotations

import pytest
from opacus.accountants import RDPAccountant

from fedpress.errors import BudgetSpent, PrivacyError
from fedpress.privacy.accounting import History, Steps, afford, epsilon, extended, from_json, to_json

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

"""Two clients, one number, one or two rounds: what each paper's formulas give, worked out by hand beside each test.

Client ``i`` has the loss ``f_i(w) = a_i / 2 * (w - b_i)**2``, so that its gradient is ``a_i * (w - b_i)``. The numbers
are small binary fractions wherever the algorithm allows: the results are then exact.
"""

from __future__ import annotations

from typing import Any


def test_fedavg(rounds: Any, bowl: Any) -> None:
    # w = 0, lr = 1/4, one step each: client 0 (a = 2, b = 4, 3 examples): 0 - 1/4 * 2 * (0 - 4) = 2;
    # client 1 (a = 1, b = -4, 1 example): 0 - 1/4 * 1 * (0 + 4) = -1; mean by examples: (3 * 2 - 1) / 4 = 5/4.
    played = rounds([bowl(2, 4, examples=3), bowl(1, -4)], 1, "train.lr=0.25")
    assert played.weights["w"].tolist() == [1.25]
    assert rounds([bowl(2, 4, examples=3), bowl(1, -4)], 1, "train.lr=0.25", "strategy.weighting=uniform").weights[
        "w"
    ].tolist() == [0.5]

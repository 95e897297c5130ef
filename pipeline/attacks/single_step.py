"""Attacks of one step: FGSM, FGSM with a random start (Fast-AT), and N-FGSM."""

from __future__ import annotations

from typing import Any

from pipeline.attacks.pgd import PGD


class FGSM(PGD):
    """Fast gradient sign method (Goodfellow et al. 2015): one step of the budget's length, from the image.

    Args:
        budget: see `PGD`.
        others: bounds, amp_dtype and memory_gib of `PGD`.
    """

    name = "fgsm"

    def __init__(self, *, budget: float, **others: Any) -> None:
        super().__init__(budget=budget, steps=1, step_size=budget, random_start=False, **others)


class FGSMRS(PGD):
    """FGSM with a random start: uniform noise in the budget, one step, projection (Wong et al. 2020, Fast-AT).

    Args:
        budget: see `PGD`.
        step_ratio: length of the step in budgets; 1.25 is theirs.
        others: bounds, amp_dtype and memory_gib of `PGD`.
    """

    name = "fgsm-rs"

    def __init__(self, *, budget: float, step_ratio: float = 1.25, **others: Any) -> None:
        super().__init__(budget=budget, steps=1, step_size=step_ratio * budget, **others)


class NFGSM(PGD):
    """N-FGSM (de Jorge et al. 2022): uniform noise of several budgets, one step of one budget, no projection.

    The result may be up to ``(noise_ratio + 1) * budget`` away from the image, which is what keeps single-step training
    from overfitting its own attack; the bounds hold. For training, not for a test at a stated budget.

    Args:
        budget: length of the step, in units of the images.
        noise_ratio: largest noise in budgets; 2 is theirs.
        others: bounds, amp_dtype and memory_gib of `PGD`.

    Raises:
        ValueError: a negative noise ratio.
    """

    name = "n-fgsm"

    def __init__(self, *, budget: float, noise_ratio: float = 2.0, **others: Any) -> None:
        if noise_ratio < 0:
            raise ValueError(f"noise_ratio is {noise_ratio}; allowed are numbers from 0 on, 2 is the paper's")
        super().__init__(budget=budget, steps=1, step_size=budget, **others)
        self._radius = (noise_ratio + 1) * self.budget
        self._start = noise_ratio / (noise_ratio + 1)

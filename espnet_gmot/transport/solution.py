"""What comes back: a backend's solution, and the result that the public function makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["FGWResult", "Solution"]


@dataclass(frozen=True)
class Solution:
    """What every backend returns for a batch; no gradient.

    Attributes:
        plan: (B, T, U) the coupling, exactly 0 on padding and where a weight is 0.
        linear: (B,) ⟨cost, plan⟩, the Wasserstein part.
        quadratic: (B,) Σ (A[i,k] − L[j,l])²·plan[i,j]·plan[k,l], the Gromov-Wasserstein part.
        marginal_error: (B,) L1 error of the balanced marginals before rounding to feasibility (after it from POT).
        gap: (B,) duality gap of the problem linearised at the plan, ≥ 0, in units of the cost: 0 at a stationary plan
            of the proximal method; an entropic plan (``mirror``) keeps what its entropy costs.
        iterations: (B,) outer steps taken.
        converged: (B,) bool, the stopping test was met.
    """

    plan: Tensor
    linear: Tensor
    quadratic: Tensor
    marginal_error: Tensor
    gap: Tensor
    iterations: Tensor
    converged: Tensor


@dataclass(frozen=True)
class FGWResult(Solution):
    """A solved batch: the solution, whose parts carry a gradient now, and its value.

    Attributes:
        value: (B,) α·quadratic + (1 − α)·linear; without the prior and without penalties.
        plan: as the backend's, detached unless `plan_gradient` asks otherwise.
    """

    value: Tensor

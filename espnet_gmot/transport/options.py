"""What the solver is asked for: every option, its default and its range, once."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TypedDict

__all__ = ["OptionKeywords", "Options"]

CHOICES = {
    "method": ("proximal", "mirror"),
    "plan_gradient": ("detached", "implicit"),
    "backend": ("auto", "torch", "numba", "pot"),
}


@dataclass(frozen=True)
class Options:
    """Options of `fused_gromov_wasserstein`, the same for every sample of a batch; every backend takes them whole.

    Attributes:
        alpha: share of the Gromov-Wasserstein part, in [0, 1].
        epsilon: strength of the entropic (proximal) term: the step is the longer the smaller it is.
        epsilon_relative: ε counts in the sample's mean effective cost; False: in units of the cost.
        rho_acoustic: KL strength on the frames' marginal in units of the cost, 0 to inf (exact).
        rho_linguistic: likewise on the tokens' marginal.
        outer_iterations: largest number of proximal steps.
        inner_iterations: Sinkhorn iterations within each.
        tolerance: one bound for three errors. A sample stops when its plan moved by no more (L1), misses its marginals
            by no more (L1) and, by the proximal method, its gap is no more in units of its mean effective cost.
        method: "proximal" (limit: the unregularised problem) or "mirror" (limit: the entropic problem at ε).
        annealing: factor ≥ 1 on ε at the first step, gone geometrically by half of the steps; slower, better minima.
        plan_gradient: "detached", or "implicit": the plan carries a gradient to the cost and to both edges, by implicit
            differentiation of the entropic problem at its solution; needs method="mirror" and a small tolerance.
        backend: "torch" (any device), "numba" (CPU, one sample per thread), "pot" (POT's conditional gradient with an
            exact linear solver, one sample at a time: a reference) or "auto": numba where it can, else torch.

    Raises:
        ValueError: a value is out of range; the message names the option, its value and what was expected.
    """

    alpha: float = 0.5
    epsilon: float = 0.05
    epsilon_relative: bool = True
    rho_acoustic: float = math.inf
    rho_linguistic: float = math.inf
    outer_iterations: int = 100
    inner_iterations: int = 100
    tolerance: float = 3e-3
    method: str = "proximal"
    annealing: float = 1.0
    plan_gradient: str = "detached"
    backend: str = "auto"

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name), type(field.default)))
        _expect("alpha", self.alpha, 0.0 <= self.alpha <= 1.0, "a number in [0, 1]")
        _expect("epsilon", self.epsilon, 0.0 < self.epsilon < math.inf, "a positive number")
        for name in ("rho_acoustic", "rho_linguistic"):
            _expect(name, getattr(self, name), getattr(self, name) >= 0.0, "a number from 0 to inf")
        for name in ("outer_iterations", "inner_iterations"):
            _expect(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _expect("tolerance", self.tolerance, self.tolerance >= 0.0, "a number of at least 0")
        _expect("annealing", self.annealing, 1.0 <= self.annealing < math.inf, "a factor of at least 1")
        for name, known in CHOICES.items():
            listed = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
            _expect(name, getattr(self, name), getattr(self, name) in known, listed)
        if self.plan_gradient == "implicit" and (self.method != "mirror" or self.backend == "pot"):
            raise ValueError(
                f"plan_gradient is 'implicit' with method {self.method!r} and backend {self.backend!r}; expected "
                "method 'mirror' and not 'pot': the plan of a linear program moves in jumps, an entropic one smoothly"
            )

    @property
    def balanced(self) -> bool:
        """Both marginals are hard constraints."""
        return math.isinf(self.rho_acoustic) and math.isinf(self.rho_linguistic)

    def temperature(self, step: int) -> float:
        """Factor on ε at an outer step: from `annealing` down to 1 over the first half of the steps, geometrically."""
        if self.annealing == 1.0:
            return 1.0
        return math.pow(self.annealing, max(0.0, 1.0 - step / max(1.0, 0.5 * self.outer_iterations)))


class OptionKeywords(TypedDict, total=False):
    """The fields of `Options` as keywords, for type checkers; a test keeps the two alike."""

    alpha: float
    epsilon: float
    epsilon_relative: bool
    rho_acoustic: float
    rho_linguistic: float
    outer_iterations: int
    inner_iterations: int
    tolerance: float
    method: str
    annealing: float
    plan_gradient: str
    backend: str


def _typed(name: str, value: object, kind: type) -> object:
    """The value as a Python bool, int, float or str, where it is a number of that kind or the text asked for."""
    if kind in (bool, str):
        if isinstance(value, kind):
            return value
        raise ValueError(f"{name} is {value!r}; expected " + ("True or False" if kind is bool else "text"))
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, str) or math.isnan(number) or (kind is int and not number.is_integer()):
        raise ValueError(f"{name} is {value!r}; expected a " + ("whole number" if kind is int else "number"))
    return kind(number)


def _expect(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; expected {expected}")

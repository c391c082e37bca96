"""What a plan is worth, by the formulas, at plans and potentials that no solver made."""

import math

import pytest
import torch

from espnet_gmot.transport import Options, cosine_cost
from espnet_gmot.transport.assess import assess, gw_gradient
from espnet_gmot.transport.edges import DenseEdges
from espnet_gmot.transport.problem import make_problem
from tests.transport import fgw_cases


@pytest.mark.parametrize("rhos", [(math.inf, 0.3), (0.3, math.inf), (0.2, 0.7), (0.3, 0.0), (0.0, 0.3)])
def test_the_gap_of_relaxed_marginals_is_the_primal_less_the_dual(rhos: tuple[float, float]) -> None:
    case = fgw_cases.speech_like(2, (5, 7), (3, 4))
    acoustic, linguistic = (DenseEdges(edges.double()) for edges in case.dense()[1:3])
    cost = cosine_cost(case.acoustic, case.linguistic).double()
    options = Options(alpha=0.4, rho_acoustic=rhos[0], rho_linguistic=rhos[1])
    problem = make_problem(cost, acoustic, linguistic, *case.dense()[3:], None, None, None, None, options)
    plan = torch.where(problem.support(), torch.rand(cost.shape, dtype=torch.float64), 0.0)
    plan = plan / plan.sum((1, 2), keepdim=True)
    f = torch.randn(2, cost.shape[1], 1, dtype=torch.float64)
    g = torch.zeros(2, 1, cost.shape[2], dtype=torch.float64)
    node, _, gap = assess(problem, plan, problem.linear_cost(), f, g)
    gradient = 0.6 * cost + 2 * 0.4 * gw_gradient(problem, plan)
    for i, (frames, tokens) in enumerate(zip(case.acoustic_lengths, case.linguistic_lengths, strict=True)):
        slope, here = gradient[i, :frames, :tokens], plan[i, :frames, :tokens]
        assert node[i].item() == pytest.approx((cost[i, :frames, :tokens] * here).sum().item())
        columns = (slope - f[i, :frames]).amin(0) * (rhos[1] > 0)  # c-transforms: no pair pays more than it costs
        rows = (slope - columns).amin(1)
        primal, dual = (slope * here).sum(), torch.zeros((), dtype=torch.float64)
        for rho, price, mass in ((rhos[0], rows, here.sum(1)), (rhos[1], columns, here.sum(0))):
            share = 1 / len(price)
            if math.isinf(rho):
                dual += share * price.sum()
            elif rho > 0:
                dual += rho * share * (1 - torch.exp(-price / rho)).sum()
                primal += rho * (mass * torch.log(mass / share) - mass + share).sum()
        assert gap[i].item() == pytest.approx(max(0.0, (primal - dual).item()), rel=1e-9)
        assert gap[i] > 0.01

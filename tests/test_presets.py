"""What makes each member of the family itself."""

import ot
import pytest
import torch

from espnet_gmot.config import GMOTConfig
from espnet_gmot.graph import Graph
from espnet_gmot.loss import GMOTLoss
from espnet_gmot.pooling import CIF, Attention
from espnet_gmot.transport import cosine_cost

LENGTHS, TOKENS = torch.tensor([24, 18]), torch.tensor([6, 4])


def loss_of(preset: str, **options: object) -> GMOTLoss:
    torch.manual_seed(1)
    return GMOTLoss(GMOTConfig.from_dict({"preset": preset, "teacher_width": 8, "backend": "torch", **options}), 8)


@pytest.fixture
def graphs() -> tuple[Graph, Graph]:
    """Acoustic graphs that say each token for four frames, with noise, and a loud stretch that says nothing known."""
    torch.manual_seed(2)
    tokens = torch.randn(2, 6, 8)
    frames = tokens.repeat_interleave(4, 1) + 0.7 * torch.randn(2, 24, 8)
    frames[:, :3] = -4 * tokens.mean(1, keepdim=True) + 0.1 * torch.randn(2, 3, 8)
    return Graph(frames, LENGTHS), Graph(tokens, TOKENS)


def monotony(plan: torch.Tensor) -> float:
    """Mean distance of the plan's mass from the diagonal, in shares of the utterance."""
    total = 0.0
    for sample, frames, tokens in zip(plan, LENGTHS.tolist(), TOKENS.tolist(), strict=True):
        i = (torch.arange(24) + 0.5) / frames
        j = (torch.arange(6) + 0.5) / tokens
        total += float((sample * (i[:, None] - j).abs()).sum() / sample.sum()) / 2
    return total


ENTROPIC = {"method": "mirror"}
SAME = [
    ("ot", {}, "gmot", {"alpha": 0.0, **ENTROPIC}),
    ("uot", {"rho_acoustic": float("inf")}, "ot", {}),
    ("tot", {"order_lambda1": 0.0, "order_lambda2": 0.0}, "ot", {"epsilon": 0.1, "epsilon_relative": False}),
    ("gmot-t", {"order_lambda1": 0.0, "order_lambda2": 0.0}, "gmot", {}),
    ("gmot-t", {"alpha": 0.0, "epsilon": 0.1, "epsilon_relative": False, **ENTROPIC}, "tot", {}),
    ("gmot-u", {"rho_acoustic": float("inf")}, "gmot", {}),
    ("gmot-u", {"alpha": 0.0, **ENTROPIC}, "uot", {}),
]


@pytest.mark.parametrize(("one", "options", "other", "others"), SAME)
def test_special_cases_meet(one: str, options: dict, other: str, others: dict, graphs: tuple[Graph, Graph]) -> None:
    ours = loss_of(one, **options).transport(*graphs)
    theirs = loss_of(other, **others).transport(*graphs)
    torch.testing.assert_close(ours.plan, theirs.plan, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(ours.value, theirs.value)


def test_ot_is_the_entropic_plan_of_pot(graphs: tuple[Graph, Graph]) -> None:
    loss = loss_of(
        "ot", outer_iterations=200, inner_iterations=200, tolerance=1e-7, epsilon_relative=False, epsilon=0.1
    )
    plan = loss.transport(*graphs).plan
    cost = cosine_cost(graphs[0].nodes, graphs[1].nodes)
    for sample, (frames, tokens) in enumerate(zip(LENGTHS.tolist(), TOKENS.tolist(), strict=True)):
        uniform = [torch.full((n,), 1 / n, dtype=torch.double).numpy() for n in (frames, tokens)]
        expected = ot.sinkhorn(*uniform, cost[sample, :frames, :tokens].double().numpy(), 0.1, stopThr=1e-12)
        torch.testing.assert_close(
            plan[sample, :frames, :tokens].double(), torch.from_numpy(expected), atol=2e-5, rtol=0
        )


@pytest.mark.parametrize("rho", [0.1, 1.0])
def test_uot_is_the_entropic_plan_with_relaxed_frames(rho: float, graphs: tuple[Graph, Graph]) -> None:
    """Scalings by hand: the frames' step is raised to ρ/(ρ + ε), the tokens' is exact (Chizat et al. 2018)."""
    exact = {"outer_iterations": 200, "inner_iterations": 300, "tolerance": 1e-7, "epsilon_relative": False}
    plan = loss_of("uot", **exact, epsilon=0.1, rho_acoustic=rho).transport(*graphs).plan
    cost = cosine_cost(graphs[0].nodes, graphs[1].nodes).double()
    for sample, (frames, tokens) in enumerate(zip(LENGTHS.tolist(), TOKENS.tolist(), strict=True)):
        kernel = (-cost[sample, :frames, :tokens] / 0.1).exp() / (frames * tokens)
        u, v = torch.ones(frames).double(), torch.ones(tokens).double()
        for _ in range(2000):
            u = (1 / frames / (kernel @ v)) ** (rho / (rho + 0.1))
            v = 1 / tokens / (kernel.T @ u)
        expected = u[:, None] * kernel * v
        torch.testing.assert_close(plan[sample, :frames, :tokens].double(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("options", [{"prior": "band"}, {"prior": "band", "band_width": 0.05, "band_weight": 3.0}])
def test_a_band_draws_relaxed_frames_neither_forwards_nor_back(options: dict) -> None:
    """Nodes that say nothing, frames at a price: tokens keep their own middles."""
    nodes, tokens = torch.ones(1, 48, 8), torch.ones(1, 6, 8)
    loss = loss_of("gmot", rho_acoustic=0.1, **options)
    plan = loss.transport(Graph(nodes, torch.tensor([48])), Graph(tokens, torch.tensor([6]))).plan[0]
    torch.testing.assert_close(plan, plan.flip(0, 1), atol=1e-6, rtol=1e-3)
    centre = (plan * (torch.arange(48.0) + 0.5)[:, None]).sum(0) / plan.sum(0)
    torch.testing.assert_close(centre, 8 * (torch.arange(6.0) + 0.5), atol=0.8, rtol=0)  # a tenth of a token


def test_ot_ignores_the_edges(graphs: tuple[Graph, Graph]) -> None:
    feature, temporal = loss_of("ot"), loss_of("ot", feature_edges=0.0, temporal_edges=1.0)
    torch.testing.assert_close(feature.transport(*graphs).plan, temporal.transport(*graphs).plan)
    different = loss_of("gmot", feature_edges=0.0, temporal_edges=1.0).transport(*graphs)
    assert (loss_of("gmot").transport(*graphs).plan - different.plan).abs().max() > 1e-3


@pytest.mark.parametrize(("with_prior", "without"), [("tot", "ot"), ("gmot-t", "gmot")])
def test_the_temporal_prior_makes_the_plan_more_monotone(with_prior: str, without: str, graphs: tuple) -> None:
    assert monotony(loss_of(with_prior).transport(*graphs).plan) < monotony(loss_of(without).transport(*graphs).plan)


@pytest.mark.parametrize("preset", ["uot", "gmot-u"])
def test_relaxed_frames_may_stay_unmatched_but_no_token(preset: str, graphs: tuple) -> None:
    plan = loss_of(preset).transport(*graphs).plan
    frames = plan.sum(2)[0] * 24
    assert frames[:3].max() < 0.5 and frames[3:].mean() > 0.9  # the foreign stretch says nothing
    for sample, tokens in zip(plan, TOKENS.tolist(), strict=True):
        torch.testing.assert_close(sample.sum(0)[:tokens], torch.full((tokens,), 1 / tokens), atol=2e-3, rtol=0)
    balanced = loss_of(preset, rho_acoustic=float("inf")).transport(*graphs).plan.sum(2)[0] * 24
    torch.testing.assert_close(balanced, torch.ones(24), atol=1e-3, rtol=0)


def test_graph_matching_looks_at_the_structure(graphs: tuple[Graph, Graph]) -> None:
    exact = {"method": "proximal", "outer_iterations": 300, "inner_iterations": 100, "tolerance": 1e-5}
    distances = {preset: loss_of(preset, **exact).transport(*graphs) for preset in ("ot", "gmot")}
    assert (distances["gmot"].quadratic <= distances["ot"].quadratic + 1e-5).all()
    assert (distances["ot"].linear <= distances["gmot"].linear + 1e-5).all()


@pytest.mark.parametrize(("preset", "kind"), [("kd-att", Attention), ("kd-cif", CIF)])
def test_distillation_pools_instead_of_transporting(preset: str, kind: type, graphs: tuple[Graph, Graph]) -> None:
    loss = loss_of(preset).train()
    assert isinstance(loss.pooling, kind)
    value, stats = loss(graphs[0].nodes, LENGTHS, graphs[1].nodes, TOKENS)
    assert "loss_wd" not in stats
    torch.testing.assert_close(value, stats["loss_align"] + stats["loss_quantity"])
    value.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in loss.pooling.parameters() if parameter.dim() > 1)

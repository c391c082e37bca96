"""What makes each member of the family itself."""

import pytest
import torch

from espnet_gmot.config import PRESETS, GMOTConfig
from espnet_gmot.graph import Graph
from espnet_gmot.loss import GMOTLoss

TRANSPORTS = ["ot", "tot", "uot", "gmot", "gmot-t", "gmot-u"]
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


@pytest.mark.parametrize("preset", TRANSPORTS)
def test_a_preset_equals_its_general_form(preset: str, graphs: tuple[Graph, Graph]) -> None:
    general = loss_of("gmot", **{**{"alpha": 0.5, "prior": "none"}, **PRESETS[preset]})
    ours, theirs = loss_of(preset).transport(*graphs), general.transport(*graphs)
    assert torch.equal(ours.plan, theirs.plan) and torch.equal(ours.value, theirs.value)


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
    distances = {preset: loss_of(preset).transport(*graphs) for preset in ("ot", "gmot")}
    assert (distances["gmot"].quadratic <= distances["ot"].quadratic + 1e-5).all()
    assert (distances["ot"].linear <= distances["gmot"].linear + 1e-5).all()


@pytest.mark.parametrize("preset", ["kd-att", "kd-cif"])
def test_distillation_has_no_transport(preset: str, graphs: tuple[Graph, Graph]) -> None:
    loss = loss_of(preset).train()
    _, stats = loss(graphs[0].nodes, LENGTHS, graphs[1].nodes, TOKENS)
    assert "loss_wd" not in stats and stats["loss_quantity"] >= 0 and loss.config.w_ot == 0

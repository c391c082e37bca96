"""The GPU's kernels against torch's steps: in Triton's interpreter on a CPU, compiled where there is a GPU."""

import logging
import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from espnet_gmot.transport import gpu, proximal
from espnet_gmot.transport.assess import assess, rounded
from espnet_gmot.transport.edges import CosineEdges, DenseEdges, SumEdges, TemporalEdges
from espnet_gmot.transport.options import Options
from espnet_gmot.transport.problem import Problem, make_problem
from espnet_gmot.transport.sinkhorn import NOTHING, sinkhorn_log
from tests.transport import fgw_cases

pytest.importorskip("triton", reason="no Triton here (it comes with torch's builds for GPUs)")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
EXACT = (math.inf, math.inf)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 rows and 16 columns, so that several make a sample."""
    monkeypatch.setattr(gpu, "TILE", 256)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are taken for what is on a CPU, too."""
    monkeypatch.setattr(gpu, "_usable", lambda matrix: gpu.ENABLED)


def parts(batch: int = 3, frames: int = 37, tokens: int = 11, spread: float = 3.0) -> list[torch.Tensor]:
    """Kernel, log weights, potentials and ε of a batch whose last sample is empty and whose others are padded."""
    drawn = torch.Generator().manual_seed(frames * tokens)
    kernel = spread * torch.randn(batch, frames, tokens, generator=drawn)
    t = torch.linspace(frames, max(1, frames // 2), batch).long()
    u = torch.linspace(tokens, max(1, tokens // 2), batch).long()
    t[-1] = u[-1] = 0
    a, b = torch.rand(batch, frames, generator=drawn), torch.rand(batch, tokens, generator=drawn)
    a, b = a * (torch.arange(frames) < t[:, None]), b * (torch.arange(tokens) < u[:, None])
    if frames > 2:
        a[0, 1] = 0.0  # a frame without weight inside
    a, b = a / a.sum(1, keepdim=True).clamp(min=1e-30), b / b.sum(1, keepdim=True).clamp(min=1e-30)
    logs = [torch.where(w > 0, w.clamp(min=1e-38).log(), torch.tensor(NOTHING)) for w in (a, b)]
    kernel = torch.where((a > 0)[:, :, None] & (b > 0)[:, None, :], kernel, torch.tensor(NOTHING))
    f, g = torch.randn(batch, frames, 1, generator=drawn), torch.randn(batch, 1, tokens, generator=drawn)
    f, g = f * (a > 0)[:, :, None], g * (b > 0)[:, None, :]
    made = [kernel, logs[0][:, :, None], logs[1][:, None, :], f, g, torch.rand(batch, 1, 1, generator=drawn) + 0.1]
    return [part.to(DEVICE) for part in made]


@pytest.mark.parametrize("shape", [(3, 37, 11), (2, 1, 1), (4, 64, 16), (2, 130, 40), (2, 9, 300)], ids=str)
@pytest.mark.parametrize("rho", [EXACT, (0.5, math.inf), (0.3, 2.0), (0.0, math.inf)], ids=str)
def test_sinkhorn(shape: tuple[int, int, int], rho: tuple[float, float]) -> None:
    given = parts(*shape)
    for iterations in (1, 7):
        ours = gpu._scaled(*given, *rho, iterations)
        for mine, theirs in zip(ours, sinkhorn_log(*given, *rho, iterations), strict=True):
            assert mine.shape == theirs.shape
            torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=2e-5)


def test_every_sample_stops_for_itself() -> None:
    given = parts(6, 30, 9, spread=1.0)
    slack = torch.tensor([1.0, 1e-1, 1e-2, 1e-3, 0.0, 1e-3], device=DEVICE)
    ours = gpu._scaled(*given, *EXACT, 50, slack)
    for mine, theirs in zip(ours, sinkhorn_log(*given, *EXACT, 50, slack), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=2e-5)
    whole = gpu._scaled(*given, *EXACT, 50, None)
    assert not torch.allclose(ours[0][0], whole[0][0], atol=1e-3)  # so the test can fail
    torch.testing.assert_close(ours[0][4], whole[0][4])


#: Triton's interpreter takes a millisecond for what a GPU does in microseconds.
FEW = {"tolerance": 0.02, "outer_iterations": 12, "inner_iterations": 30}
SOLVES: dict[str, dict[str, Any]] = {
    "nodes and edges": FEW,
    "defaults": {} if GPU else {"outer_iterations": 4, "inner_iterations": 20},
    "nodes": {**FEW, "alpha": 0.0},
    "edges": {**FEW, "alpha": 1, "epsilon": 0.1},
    "mirror": {**FEW, "method": "mirror", "epsilon": 0.3},
    "rests while hot": {**FEW, "annealing": 8.0, "tolerance": 0.4},
    "training": {"tolerance": 0.05, "outer_iterations": 20, "inner_iterations": 50},
    "no tolerance": {"tolerance": 0.0, "outer_iterations": 4, "inner_iterations": 20},
    "one step": {"outer_iterations": 1, "inner_iterations": 1},
}


def problem(options: dict[str, Any], extras: bool = False, factored: bool = False) -> Problem:
    """A batch with an empty sample and a cost that isn't contiguous; weights, prior and a plan to start from, too."""
    case = fgw_cases.speech_like(4, (12, 30), (4, 9))
    cost, acoustic, linguistic, t, u = case.dense()
    t, drawn = t.clone(), torch.Generator().manual_seed(7)
    t[2] = 0
    more: list[torch.Tensor | None] = [None] * 4
    if extras:
        more = [torch.rand(size, generator=drawn) for size in (cost.shape[:2], cost.shape[::2], cost.shape, cost.shape)]
        more[0][:, 3] = 0.0
    cost, acoustic, linguistic, t, u, *more = (
        part if part is None else part.to(DEVICE) for part in (cost, acoustic, linguistic, t, u, *more)
    )
    edges = DenseEdges(acoustic), DenseEdges(linguistic)
    if factored:
        graphs = case.acoustic.to(DEVICE), case.linguistic.to(DEVICE)
        temporal = [TemporalEdges(length, graph.shape[1]) for length, graph in zip((t, u), graphs, strict=True)]
        edges = tuple(
            SumEdges([(0.5, CosineEdges(graph)), (0.5, time)]) for graph, time in zip(graphs, temporal, strict=True)
        )
    return make_problem(cost.mT.contiguous().mT, *edges, t, u, *more, Options(**options))


@pytest.mark.parametrize("extras", [False, True], ids=["plain", "extras"])
@pytest.mark.parametrize("name", SOLVES)
def test_the_whole_solver(name: str, extras: bool, kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same values, plans, certificates and counts as torch's steps."""
    ours = proximal.solve(problem(SOLVES[name], extras))
    monkeypatch.setattr(gpu, "ENABLED", False)
    theirs = proximal.solve(problem(SOLVES[name], extras))
    assert (ours.iterations - theirs.iterations).abs().max() <= 1
    same = ours.iterations == theirs.iterations
    assert same.float().mean() >= 0.75
    for part in ("linear", "quadratic", "marginal_error", "gap"):
        mine, other = getattr(ours, part), getattr(theirs, part)
        assert mine.shape == other.shape and mine[2] == 0.0
        torch.testing.assert_close(mine[same], other[same], atol=2e-4, rtol=1e-3, msg=lambda m, p=part: f"{p}: {m}")
    assert (ours.plan - theirs.plan)[same].abs().sum((1, 2)).max() < 5e-3
    assert torch.equal(ours.converged[same], theirs.converged[same]) and ours.converged[2]
    assert ours.plan[2].abs().max() == 0.0
    if name in ("nodes and edges", "training"):
        assert ours.converged.all()  # so the tests above have seen plans that rest


def test_factored_edges(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "FEW_NODES", 0)
    ours = proximal.solve(problem(SOLVES["training"], factored=True))
    monkeypatch.setattr(gpu, "ENABLED", False)
    theirs = proximal.solve(problem(SOLVES["training"], factored=True))
    torch.testing.assert_close(ours.quadratic, theirs.quadratic, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(ours.gap, theirs.gap, atol=1e-3, rtol=1e-3)


def test_a_plan_is_done_when_its_gap_is_small_and_not_before() -> None:
    """The certificate of any plan and potentials, against torch's, and what comes of it."""
    from espnet_gmot.transport.gpu_kernels import judge

    made = problem({"alpha": 0.4}, extras=True)
    steps = proximal.Steps(made)
    state = steps.start()
    drawn = torch.Generator().manual_seed(3)
    noise = torch.rand(state.plan.shape, generator=drawn).to(DEVICE)
    plan = rounded(made, state.plan * noise)
    f, g = (state.f + 0.1).contiguous(), state.g.contiguous()
    node, energy, gap = assess(made, plan, steps.linear, f * steps.epsilon, g * steps.epsilon)
    squares = made.acoustic.hadamard(made.acoustic, made.acoustic_weights)
    others = made.linguistic.hadamard(made.linguistic, made.linguistic_weights)
    wanted = torch.tensor([1, 1, 1, 0], dtype=torch.int32, device=DEVICE)
    for factor, settled in ((1.01, 1), (0.99, 0)):
        tolerance = float(factor * (gap / steps.scale)[0])
        plans, done = torch.zeros_like(plan), torch.zeros_like(wanted)
        found = [torch.full_like(gap, -1.0) for _ in range(3)]
        for keep in (True, False):
            judge[(4,)](
                *gpu._packed(made.cost, steps.linear, gpu._product(made, plan), squares, others, plan, f, g),
                *gpu._packed(made.acoustic_weights, made.linguistic_weights, steps.epsilon, steps.scale), wanted, plans,
                done, *found, *plan.shape[1:], 0.4, tolerance, GROMOV=True, KEEP=keep, NOTHING=NOTHING,
                **gpu._shape(plan),
            )  # fmt: skip
        assert done[0] == settled and done[3] == 0
        assert torch.equal(plans[:3], plan[:3]) and plans[3].abs().max() == 0.0
        for ours, theirs in zip(found, (node, energy, gap), strict=True):
            torch.testing.assert_close(ours[:3], theirs[:3], atol=1e-5, rtol=1e-4)
            assert ours[3] == -1.0


@pytest.mark.parametrize("where", ["cost", "prior", "edges"])
@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_what_is_no_number_is_not_hidden(where: str, what: float, kernels: None) -> None:
    """It comes out as NaN, of its sample alone."""
    made = problem({**SOLVES["no tolerance"], "tolerance": 0.05}, extras=True)
    target = {"cost": made.cost, "prior": made.prior, "edges": made.acoustic.dense()}[where]
    assert target is not None
    target[0, 0, 0] = what
    found = proximal.solve(made)
    assert torch.isnan(found.linear[0]) and torch.isnan(found.gap[0]) and not found.converged[0]
    for part in (found.linear, found.quadratic, found.gap, found.plan):
        assert torch.isfinite(part[1:]).all()


def test_where_triton_fails_torch_does_it(
    kernels: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(gpu, "_known", {})
    monkeypatch.setattr(gpu, "_usable", lambda matrix: gpu._works(matrix.device))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(gpu, "_scaled", broken)
        for _ in range(2):
            proximal.solve(problem(SOLVES["one step"]))
            given = parts()
            torch.testing.assert_close(gpu.scaled(*given, *EXACT, 5)[0], sinkhorn_log(*given, *EXACT, 5)[0])
    assert caplog.text.count("no compiler") == 1
    monkeypatch.setattr(gpu, "_known", {})
    assert gpu._works(torch.device(DEVICE)) and caplog.text.count("transport:") == 1


def test_the_mathematics_needs_no_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import torch; from espnet_gmot.transport import *; "
    code += "r = fused_gromov_wasserstein(torch.rand(1, 4, 2), torch.zeros(1, 4, 4), torch.zeros(1, 2, 2), "
    code += "torch.tensor([4]), torch.tensor([2]), backend='torch'); assert r.plan.sum() > 0.99"
    subprocess.run([sys.executable, "-c", code], check=True)

"""The Triton kernels against torch's steps: in Triton's interpreter on a CPU, compiled where there is a GPU."""

import math
import os
import subprocess
import sys

import pytest
import torch

from espnet_gmot.transport import fused, proximal
from espnet_gmot.transport.edges import DenseEdges
from espnet_gmot.transport.options import Options
from espnet_gmot.transport.problem import Problem, make_problem
from espnet_gmot.transport.sinkhorn import NOTHING, sinkhorn_log
from espnet_gmot.transport.solution import Solution
from tests.transport import fgw_cases

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # before its first import
triton = pytest.importorskip("triton", reason="no Triton here (it comes with torch's builds for GPUs)")


def problem(batch: int = 3, frames: int = 37, tokens: int = 11, spread: float = 3.0) -> list[torch.Tensor]:
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
    parts = [kernel, logs[0][:, :, None], logs[1][:, None, :], f, g, torch.rand(batch, 1, 1, generator=drawn) + 0.1]
    return [part.cuda() if GPU else part for part in parts]


@pytest.mark.parametrize("shape", [(3, 37, 11), (2, 1, 1), (4, 64, 16), (2, 130, 40), (2, 9, 300)], ids=str)
@pytest.mark.parametrize("rho", [(math.inf, math.inf), (0.5, math.inf), (0.3, 2.0), (0.0, math.inf)], ids=str)
def test_equals_the_steps_in_torch(shape: tuple[int, int, int], rho: tuple[float, float], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    parts = problem(*shape)
    monkeypatch.setattr(fused, "TILE", 1024)  # so that several tiles make a sample
    for iterations in (1, 7):
        ours = fused._sinkhorn(*parts, *rho, iterations, None)
        for mine, theirs in zip(ours, sinkhorn_log(*parts, *rho, iterations), strict=True):
            assert mine.shape == theirs.shape
            torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=2e-5)


def test_every_sample_stops_for_itself() -> None:
    parts, exact = problem(6, 30, 9, spread=1.0), (math.inf, math.inf)
    slack = torch.tensor([1.0, 1e-1, 1e-2, 1e-3, 0.0, 1e-3], device=parts[0].device)
    ours = fused._sinkhorn(*parts, *exact, 50, slack)
    for mine, theirs in zip(ours, sinkhorn_log(*parts, *exact, 50, slack), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=2e-5)
    whole = fused._sinkhorn(*parts, *exact, 50, None)
    assert not torch.allclose(ours[0][0], whole[0][0], atol=1e-3)  # so the test can fail
    torch.testing.assert_close(ours[0][4], whole[0][4])


#: Triton's interpreter takes a millisecond for what a GPU does in microseconds.
EFFORT = {} if GPU else {"outer_iterations": 6, "inner_iterations": 20}
SOLVES: dict[str, dict] = {
    "defaults": EFFORT,
    "transport": {"alpha": 0.0, **EFFORT},
    "gromov": {"alpha": 1.0, "epsilon": 0.1, **EFFORT},
    "mirror": {"method": "mirror", "epsilon": 0.3, **EFFORT},
    "annealing": {"annealing": 8.0, **EFFORT},
    "training": {"tolerance": 0.05, "outer_iterations": 20, "inner_iterations": 50},
    "no tolerance": {"tolerance": 0.0, "outer_iterations": 4, "inner_iterations": 20},
    "one step": {"outer_iterations": 1, "inner_iterations": 1},
}


def solved(options: dict, prior: bool, weights: bool, kernels: bool) -> Solution:
    """A batch with an empty sample and a cost that isn't contiguous, by the kernels or by torch's steps."""
    case = fgw_cases.speech_like(4, (12, 30), (4, 9))
    cost, acoustic, linguistic, t, u = case.dense()
    t, drawn = t.clone(), torch.Generator().manual_seed(7)
    t[2] = 0
    shape, device = cost.shape, "cuda" if GPU else "cpu"
    more = [
        torch.rand(shape[:2], generator=drawn) if weights else None,
        torch.rand(shape[0], shape[2], generator=drawn) if weights else None,
        torch.rand(shape, generator=drawn) if prior else None,
    ]
    if weights:
        more[0][:, 3] = 0.0
    cost, acoustic, linguistic, t, u, *more = (
        part if part is None else part.to(device) for part in (cost, acoustic, linguistic, t, u, *more)
    )
    made: Problem = make_problem(
        cost.mT.contiguous().mT, DenseEdges(acoustic), DenseEdges(linguistic), t, u, *more, None, Options(**options)
    )
    if not kernels:
        return proximal.solve(made)
    steps = proximal.Steps(made)
    return fused._solve(steps, steps.start())


@pytest.mark.parametrize("prior", [False, True], ids=["plain", "prior"])
@pytest.mark.parametrize("name", SOLVES)
def test_the_whole_solver(name: str, prior: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same values, plans, certificates and counts as torch's steps, tiles smaller than a sample."""
    monkeypatch.setattr(fused, "TILE", 256)  # 16 rows of 16
    ours = solved(SOLVES[name], prior, prior, True)
    monkeypatch.setattr(fused, "takes", lambda problem: False)
    theirs = solved(SOLVES[name], prior, prior, False)
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


def test_without_triton_torch_does_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no compiler")

    parts = [*problem(), math.inf, math.inf, 5]
    monkeypatch.setattr(fused, "_usable", lambda kernel: not fused._refused)
    monkeypatch.setattr(fused, "_sinkhorn", broken)
    monkeypatch.setattr(fused, "_refused", False)
    for _ in range(2):
        torch.testing.assert_close(fused.sinkhorn(*parts)[0], sinkhorn_log(*parts)[0])
    assert fused._refused and caplog.text.count("no compiler") == 1


def test_a_cpu_needs_no_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; from espnet_gmot.transport import fused, proximal"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not fused._usable(torch.zeros(1, 2, 2))

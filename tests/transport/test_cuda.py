"""The torch solver as a GPU runs it: it asks for no number on the way; where a GPU is at hand, it equals the CPU."""

import math

import pytest
import torch

from espnet_gmot.transport import CosineEdges, Edges, SumEdges, TemporalEdges, cuda, fused_gromov_wasserstein, gpu
from espnet_gmot.transport.assess import rounded
from espnet_gmot.transport.edges import as_edges
from espnet_gmot.transport.options import Options
from espnet_gmot.transport.problem import Problem, make_problem
from espnet_gmot.transport.proximal import Steps
from tests.transport import fgw_cases

OPTIONS = [
    {},
    {"alpha": 0.0},
    {"method": "mirror"},
    {"rho_acoustic": 0.2},
    {"rho_acoustic": 0.5, "rho_linguistic": 0.3},
    {"annealing": 8.0},
    {"tolerance": 0.0, "outer_iterations": 5},
]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def edges(kind: str, case: fgw_cases.Case) -> Edges:
    """Acoustic edges of a kind, on the case's device."""
    lengths, size = case.acoustic_lengths, case.acoustic.shape[1]
    cosine, temporal = CosineEdges(case.acoustic), TemporalEdges(lengths, size)
    banded = TemporalEdges(lengths, size, 5)
    return {"dense": as_edges(cosine.dense()), "cosine": cosine, "sum": SumEdges([(0.4, cosine), (0.6, banded)])}.get(
        kind, temporal
    )


def moved(case: fgw_cases.Case, device: str) -> fgw_cases.Case:
    return fgw_cases.Case(*(tensor.to(device) for tensor in vars(case).values()))


def problem(case: fgw_cases.Case, kind: str, options: dict, device: str = "cpu") -> Problem:
    """The case's problem on a device; cosine_cost's autocast knows no meta device, so its result is moved."""
    cost, _, linguistic, *lengths = (tensor.to(device) for tensor in case.dense())
    acoustic = edges(kind, moved(case, device))
    return make_problem(cost, acoustic, as_edges(linguistic), *lengths, None, None, None, None, Options(**options))


@pytest.mark.parametrize("kind", ["dense", "cosine", "temporal", "sum"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_no_step_waits_for_the_device(kind: str, options: dict) -> None:
    """On torch's meta device, tensors have no numbers: whatever asked for one would raise."""
    steps = Steps(problem(fgw_cases.speech_like(3), kind, options, "meta"))
    state = steps.step(steps.start(), torch.ones((), device="meta"))
    assert state.plan.shape == (3, 30, 8) and state.plan.device.type == "meta"
    assert all(part.shape == (3,) for part in steps.assess(rounded(steps.problem, state.plan), state))
    with pytest.raises(RuntimeError):  # so the test can fail
        bool(state.done.all())


def test_a_cpu_needs_neither_graph_nor_late_stop() -> None:
    steps = Steps(problem(fgw_cases.speech_like(3), "dense", {}))
    state = steps.start()
    assert cuda.captured(steps.step, state, 100) == steps.step
    watch = cuda.Watch(state.done)
    assert not watch(state.done) and watch(~state.done)


def test_a_late_stop_is_a_few_steps_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the device's clock in the test's hands: answers arrive only when somebody waits for them."""

    class Event:
        waits = 0

        def record(self, stream: object) -> None: ...

        def synchronize(self) -> None:
            Event.waits += 1

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **more: torch.zeros(*shape, **more))
    watch = cuda.Watch(torch.zeros(2, dtype=torch.bool))
    watch._on_host = False
    said = [watch(torch.tensor([True, step >= 10])) for step in range(20)]
    assert said.index(True) == 10 + cuda.LEAD
    assert Event.waits == 20 - cuda.LEAD  # none for the newest steps, so the device always has work


@on_gpu
@pytest.mark.parametrize("kind", ["dense", "cosine", "temporal", "sum"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_gpu_equals_the_cpu(kind: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Triton's kernels, by torch's with a captured step, and by torch's alone; edges as matrices and as they are."""
    case = fgw_cases.speech_like(6, (20, 40), (4, 9))
    results = []
    for device, triton, worth, few in (
        ("cpu", False, 4, 0),
        ("cuda", True, 4, 512),
        ("cuda", True, 4, 0),
        ("cuda", False, 4, 0),
        ("cuda", False, math.inf, 0),
    ):
        monkeypatch.setattr(gpu, "ENABLED", triton)
        monkeypatch.setattr(gpu, "FEW_NODES", few)
        monkeypatch.setattr(cuda, "WORTH", worth)
        there = moved(case, device)
        cost, _, linguistic, *lengths = there.dense()
        assert gpu._usable(cost) == triton  # so it's Triton that is tried
        result = fused_gromov_wasserstein(cost, edges(kind, there), linguistic, *lengths, backend="torch", **options)
        results.append((result.value.cpu(), result.gap.cpu(), result.plan.cpu(), result.iterations.cpu()))
    assert not cuda._refused
    for value, gap, plan, iterations in results[1:]:
        torch.testing.assert_close(value, results[0][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(gap, results[0][1], atol=1e-3, rtol=0)
        assert (plan - results[0][2]).abs().sum((1, 2)).max() < 2e-2
        assert (iterations - results[0][3]).abs().max() <= 1


@on_gpu
def test_a_gpu_makes_the_host_wait_for_earlier_steps_alone() -> None:
    """Every hidden wait is an error, from the batch's arrival on the device to the result."""
    args = moved(fgw_cases.speech_like(6, (20, 40), (4, 9)), "cuda").dense()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = fused_gromov_wasserstein(*args)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.value.device.type == "cuda"

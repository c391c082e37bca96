"""The same numbers, bit for bit, in every run and with any number of numba's threads."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from numba import types
from numba.core import event

from espnet_gmot.transport import cosine_cost, cosine_edges, fused_gromov_wasserstein
from espnet_gmot.transport.compiled.apart import prepare


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def solve(count: int, method: str, rho: float) -> list[torch.Tensor]:
    """Value, plan and gradients of a batch of unequal samples, by so many threads."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(5)
    h, z = torch.randn(13, 50, 6, generator=g), torch.randn(13, 17, 6, generator=g)
    lengths = torch.randint(1, 51, (13,), generator=g), torch.randint(1, 18, (13,), generator=g)
    matrices = [matrix.requires_grad_() for matrix in (cosine_cost(h, z), cosine_edges(h), cosine_edges(z))]
    torch.set_num_threads(count)
    result = fused_gromov_wasserstein(*matrices, *lengths, method=method, rho_acoustic=rho, backend="numba")
    torch.set_num_threads(1)
    result.value.sum().backward()
    return [result.value, result.plan, result.marginal_error, *(matrix.grad for matrix in matrices)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("rho", [float("inf"), 1.0])
@pytest.mark.parametrize("method", ["proximal", "mirror"])
def test_one_thread_or_two_or_again(method: str, rho: float) -> None:
    first = solve(1, method, rho)
    for count in (1, 2, 3):
        assert all(torch.equal(one, other) for one, other in zip(first, solve(count, method, rho), strict=True))


FIRST = """
import hashlib, torch
from espnet_gmot.transport import cosine_cost, cosine_edges, fused_gromov_wasserstein
generator = torch.Generator().manual_seed(0)
h, z = torch.randn(2, 40, 8, generator=generator), torch.randn(2, 9, 8, generator=generator)
lengths = torch.tensor([40, 33]), torch.tensor([9, 7])
result = fused_gromov_wasserstein(cosine_cost(h, z), cosine_edges(h), cosine_edges(z), *lengths, backend="numba")
print(hashlib.sha256(result.plan.numpy().tobytes()).hexdigest())
"""


def test_the_process_that_compiles_has_the_results_of_the_others(tmp_path: Path) -> None:
    """What numba compiles in a process isn't what it keeps on the disk, to the last bit."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    runs = [
        subprocess.run([sys.executable, "-c", FIRST], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [run.stderr.count("compiling the CPU kernels: once on this machine") for run in runs] == [1, 0]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout) == 65


class Kernels:
    """A dispatcher whose cache is empty."""

    def __init__(self, place: str | None) -> None:
        self.stats, self.compiled = SimpleNamespace(cache_path=place), []

    def compile(self, signature: object) -> None:
        with event.trigger_event("numba:compile"):
            self.compiled.append(signature)


@pytest.mark.parametrize("place", ["cache", None])
def test_where_no_other_process_can_compile_this_one_does(
    place: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    kernels = Kernels(place)
    prepare(kernels, (1.0, 2))
    assert kernels.compiled == [(types.float64, types.intp)]
    assert ("no process of its own could compile" in caplog.text) == (place is not None)
    assert "transport: compiled in 0 s" in caplog.text

"""The same numbers, bit for bit, in every run and with any number of numba's threads."""

from collections.abc import Iterator

import pytest
import torch

from espnet_gmot.transport import cosine_cost, cosine_edges, fused_gromov_wasserstein


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

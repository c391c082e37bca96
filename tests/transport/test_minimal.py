"""With torch and numpy alone the transport works all the same, and says what an extra would add."""

import subprocess
import sys

PROGRAM = """
import sys
for name in ("numba", "llvmlite", "ot", "scipy", "transformers", "kaldiio", "yaml", "espnet2"):
    sys.modules[name] = None  # as if it weren't installed
import torch
from espnet_gmot.transport import CosineEdges, cosine_cost, fused_gromov_wasserstein
h, z = torch.randn(2, 50, 16, requires_grad=True), torch.randn(2, 10, 16)
args = cosine_cost(h, z), CosineEdges(h), CosineEdges(z), torch.tensor([50, 40]), torch.tensor([10, 7])
result = fused_gromov_wasserstein(*args)
result.value.sum().backward()
print(bool(result.converged.all()), bool(h.grad.isfinite().all()))
for backend in ("numba", "pot"):
    try:
        fused_gromov_wasserstein(*args, backend=backend)
    except ValueError as error:
        print(error)
"""


def test_torch_and_numpy_are_enough() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    finite, *errors = done.stdout.splitlines()
    assert finite == "True True"
    assert "pip install 'espnet_gmot[fast]'" in errors[0]
    assert "pip install 'espnet_gmot[pot]'" in errors[1]

"""What the page shows of a coupling is the transfer's, whatever its options."""

from typing import Any

import numpy as np
import pytest
import torch

from espnet_gmot.config import GMOTConfig
from espnet_gmot.graph import Graph
from espnet_gmot.loss import GMOTLoss
from espnet_gmot.report.couplings import ALPHAS, edges

pytestmark = pytest.mark.espnet
FRAMES, TOKENS = 12, 4


def coupled(**options: Any) -> Any:
    """A coupling of random graphs as a transfer with these options has it."""
    from espnet_gmot.hosts.observe import Coupled

    generator = torch.Generator().manual_seed(1)
    acoustic, linguistic = (
        Graph(torch.randn(1, size, 6, generator=generator), torch.tensor([size])) for size in (FRAMES, TOKENS)
    )
    loss = GMOTLoss(GMOTConfig.from_dict({"teacher_width": 6, "backend": "torch", **options}), 6)
    return Coupled("encoder", loss, acoustic, linguistic, np.zeros((FRAMES, TOKENS)))


@pytest.mark.parametrize(
    "options",
    [
        {"feature_edges": 0.0, "temporal_edges": 1.0, "w_align": 0.0},  # refused in a training with alpha 1
        {"preset": "ot", "feature_edges": 0.0},  # no edges at all: refused with any alpha but its own 0
        {"preset": "gmot-u"},
    ],
)
def test_every_alpha_of_the_page_has_a_plan(options: dict[str, Any]) -> None:
    """Even one that a training with the same options would be refused for."""
    seen = coupled(**options)
    for alpha in ALPHAS:
        plan = seen.coupled_by(alpha)
        assert plan.shape == (FRAMES, TOKENS) and np.isfinite(plan).all() and (plan >= 0).all(), alpha
        np.testing.assert_allclose(plan.sum(0), np.full(TOKENS, 1 / TOKENS), atol=0.02, err_msg=str(alpha))


def test_the_edges_of_the_page_have_the_transfers_radii() -> None:
    radii = {"temporal_radius_acoustic": 3, "temporal_radius_linguistic": 2}
    found = edges(coupled(feature_edges=0.0, temporal_edges=2.0, **radii))
    for matrix, size, radius in zip(found, (FRAMES, TOKENS), radii.values(), strict=True):
        apart = np.abs(np.arange(size)[:, None] - np.arange(size))
        np.testing.assert_allclose(matrix, 2 * np.minimum(apart, radius) / radius, atol=1e-6)

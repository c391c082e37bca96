"""The transfer loss: the one place where acoustic and linguistic graphs meet.

transfer = w_ot * FGWD + w_align * ALIGN, added to the host's ASR loss (GM-OT, arXiv 2505.13079).
"""

import torch

from espnet_gmot.adapter import Adapter
from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.graph import Graph
from espnet_gmot.transport import FGWResult, cosine_cost, diagonal_prior, fused_gromov_wasserstein, order_prior


class GMOTLoss(torch.nn.Module):
    """Fused Gromov-Wasserstein distance between adapted acoustic features and the teacher's, and the alignment loss.

    Args:
        config: the options; ``teacher_width`` must be set.
        width: columns of the acoustic features.

    Everything runs in float32, whatever autocast says: plans and scalings need its range.
    """

    teacher_mean: torch.Tensor
    teacher_rows: torch.Tensor
    steps: torch.Tensor

    def __init__(self, config: GMOTConfig, width: int) -> None:
        super().__init__()
        if config.teacher_width is None:
            raise UserError("gmot_conf: teacher_width is missing: set it to the columns of the teacher's features")
        self.config = config
        self.adapter = Adapter(width, config.teacher_width, config.adapter, config.adapter_hidden)
        self.back: torch.nn.Linear | None = None
        if config.residual:
            self.back = torch.nn.Linear(config.teacher_width, width)
            torch.nn.init.zeros_(self.back.weight)  # training starts from the stock model
            torch.nn.init.zeros_(self.back.bias)
        # Buffers, so that a resumed run goes on where it stopped
        self.register_buffer("teacher_mean", torch.zeros(config.teacher_width))
        self.register_buffer("teacher_rows", torch.zeros((), dtype=torch.double))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(
        self,
        features: torch.Tensor,
        lengths: torch.Tensor,
        teacher: torch.Tensor,
        teacher_lengths: torch.Tensor,
        frame_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The transfer loss of a batch.

        Args:
            features: (B, T, width) acoustic features.
            lengths: (B,) their frames.
            teacher: (B, U, D) the teacher's features, no gradient.
            teacher_lengths: (B,) their tokens.
            frame_weights: (B, T) how much each frame counts, or None for all alike.

        Returns:
            The loss (a scalar, mean over the batch) and the statistics ``loss_gmot`` (as added), ``loss_wd``,
            ``loss_gwd``, ``loss_align`` (unweighted), ``marginal_error`` and ``iterations``.

        Raises:
            UserError: where the teacher's features aren't as wide as ``teacher_width``.
        """
        if teacher.shape[-1] != self.config.teacher_width:
            raise UserError(
                f"gmot_conf: teacher_width is {self.config.teacher_width}, but the teacher's features have "
                f"{teacher.shape[-1]} columns: set teacher_width: {teacher.shape[-1]}"
            )
        with torch.autocast(features.device.type, enabled=False):
            acoustic = Graph(self.adapter(features.float()), lengths, frame_weights).stacked(self.config.stack)
            linguistic = Graph(self._centred(teacher.float(), teacher_lengths), teacher_lengths)
            result = self.transport(acoustic, linguistic)
            align = alignment(acoustic.nodes, linguistic.nodes, result.plan, teacher_lengths)
            distance = result.value.mean()
            loss = self._ramp() * (self.config.w_ot * distance + self.config.w_align * align)
        stats = {
            "loss_gmot": loss,
            "loss_wd": result.linear.mean(),
            "loss_gwd": result.quadratic.mean(),
            "loss_align": align,
            "marginal_error": result.marginal_error.mean(),
            "iterations": result.iterations.float().mean(),
        }
        return loss, {name: value.detach() for name, value in stats.items()}

    def residual(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, T, width) plus what the adapter's linear map says of them, mapped back."""
        return features + self.back(self.adapter.map(features))

    def transport(self, acoustic: Graph, linguistic: Graph) -> FGWResult:
        """Couple the two graphs as the options say.

        Args:
            acoustic: nodes (B, T, D).
            linguistic: nodes (B, U, D).
        """
        config = self.config
        cost = cosine_cost(acoustic.nodes, linguistic.nodes)
        sizes = (acoustic.lengths, linguistic.lengths, cost.shape[1], cost.shape[2])
        prior = None
        if config.prior == "order":
            prior = order_prior(
                *sizes, lambda1=config.order_lambda1, lambda2=config.order_lambda2, delta=config.order_delta
            )
        elif config.prior == "band":
            prior = diagonal_prior(*sizes, width=config.band_width, weight=config.band_weight)
        return fused_gromov_wasserstein(
            cost,
            acoustic.edges(config.feature_edges, config.temporal_edges),
            linguistic.edges(config.feature_edges, config.temporal_edges),
            acoustic.lengths,
            linguistic.lengths,
            alpha=config.alpha,
            epsilon=config.epsilon,
            acoustic_weights=acoustic.weights,
            rho_acoustic=config.rho_acoustic,
            rho_linguistic=config.rho_linguistic,
            prior=prior,
            outer_iterations=config.outer_iterations,
            inner_iterations=config.inner_iterations,
            tolerance=config.tolerance,
            backend=config.backend,
        )

    def _centred(self, teacher: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The teacher's features less the mean of all rows seen in training so far."""
        if not self.config.centre:
            return teacher
        if self.training:
            valid = torch.arange(teacher.shape[1], device=teacher.device) < lengths[:, None]
            rows = lengths.sum()
            mean = (teacher * valid[..., None]).sum((0, 1)) / rows.clamp(min=1)
            self.teacher_rows += rows
            self.teacher_mean += (mean - self.teacher_mean) * (rows / self.teacher_rows.clamp(min=1)).float()
        return teacher - self.teacher_mean

    def _ramp(self) -> float | torch.Tensor:
        """The share of the weights that counts already: rises to 1 over ``warmup_steps`` training steps."""
        if self.config.warmup_steps == 0:
            return 1.0
        if self.training:
            self.steps += 1
        return (self.steps.float() / self.config.warmup_steps).clamp(max=1.0)


def alignment(
    acoustic: torch.Tensor, linguistic: torch.Tensor, plan: torch.Tensor, linguistic_lengths: torch.Tensor
) -> torch.Tensor:
    """ALIGN = mean_j (1 - cos(z̃_j, z_j)), z̃ = acoustic features carried to the tokens by the plan.

    Args:
        acoustic: (B, T, D).
        linguistic: (B, U, D).
        plan: (B, T, U) the transport plan; its columns need not have mass.
        linguistic_lengths: (B,) tokens.

    Returns:
        A scalar: the mean over the tokens of each sample, then over the batch.
    """
    # The barycentric projection divides by the column sums; the cosine doesn't feel that division
    carried = plan.mT @ acoustic
    cosine = torch.nn.functional.cosine_similarity(carried / _scale(plan), linguistic, dim=-1, eps=1e-8)
    valid = torch.arange(linguistic.shape[1], device=linguistic.device) < linguistic_lengths[:, None]
    per_sample = ((1.0 - cosine) * valid).sum(1) / linguistic_lengths.clamp(min=1)
    return per_sample.mean()


def _scale(plan: torch.Tensor) -> torch.Tensor:
    """Column sums (B, U, 1) of a plan, never zero."""
    return plan.sum(1).clamp(min=torch.finfo(plan.dtype).tiny)[..., None]

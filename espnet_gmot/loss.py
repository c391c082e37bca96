"""The transfer loss: the one place where acoustic and linguistic graphs meet.

transfer = w_ot * FGWD + w_align * ALIGN, added to the host's ASR loss (GM-OT, arXiv 2505.13079).
"""

import math
from dataclasses import fields

import torch

from espnet_gmot.adapter import Adapter
from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.graph import Graph
from espnet_gmot.mix import LayerMix
from espnet_gmot.pooling import CIF, Attention
from espnet_gmot.schedule import Now, at
from espnet_gmot.transport import (
    Edges,
    FGWResult,
    Options,
    cosine_cost,
    diagonal_prior,
    fused_gromov_wasserstein,
    order_prior,
)
from espnet_gmot.transport.masks import valid


class GMOTLoss(torch.nn.Module):
    """Fused Gromov-Wasserstein distance between adapted acoustic features and the teacher's, and the alignment loss.

    Args:
        config: the options; ``teacher_width`` must be set.
        width: columns of the acoustic features.

    Everything runs in float32 (float64 in a float64 model), whatever autocast says: plans and scalings need its range.
    """

    teacher_mean: torch.Tensor
    teacher_rows: torch.Tensor
    time: torch.Tensor

    def __init__(self, config: GMOTConfig, width: int) -> None:
        super().__init__()
        if config.teacher_width is None:
            raise UserError("gmot_conf: teacher_width is missing: set it to the columns of the teacher's features")
        self.config = config
        self.mix = LayerMix(len(config.layers)) if config.teacher_mix else None
        columns = config.teacher_width // len(config.layers) if self.mix else config.teacher_width
        self.adapter = Adapter(width, columns, config.adapter, config.adapter_hidden)
        self.back: torch.nn.Linear | None = None
        if config.residual:
            self.back = torch.nn.Linear(columns, width)
            torch.nn.init.zeros_(self.back.weight)  # training starts from the stock model
            torch.nn.init.zeros_(self.back.bias)
        pooling = {"attention": Attention, "cif": CIF, "transport": None}[config.coupling]
        self.pooling = pooling(columns) if pooling else None
        #: Every plan passes through it as (B, T, U): a place for hooks, and for a host's own module that shows plans.
        self.coupling: torch.nn.Module = torch.nn.Identity()
        self._pass_begins = True
        self.values = torch.zeros(0)  # (B,) what each utterance of the last batch added, to name it if need be
        # Buffers, so that a resumed run goes on where it stopped
        self.register_buffer("teacher_mean", torch.zeros(config.teacher_width))
        self.register_buffer("teacher_rows", torch.zeros((), dtype=torch.double))
        self.register_buffer("time", torch.zeros((), dtype=torch.double))  # ESPnet's averaging adds whole numbers up

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
            features: (B, T, width) acoustic features, anything past a length.
            lengths: (B,) their frames.
            teacher: (B, U, D) the teacher's features, no gradient; all layers side by side where they are mixed.
            teacher_lengths: (B,) their tokens; an utterance with none counts as a loss of zero.
            frame_weights: (B, T) how much each frame counts, or None for all alike; an utterance without any weight
                counts as a loss of zero too.

        Returns:
            The loss (a scalar, mean over the batch) and the statistics ``loss_gmot`` (as added), ``loss_wd``,
            ``loss_gwd``, ``loss_align`` (unweighted), ``marginal_error``, ``iterations``, ``converged`` (a share),
            ``mass`` of the plans where both marginals are relaxed, and ``mix_N``, the share of layer N in a mix.

        Raises:
            UserError: where the teacher's features aren't as wide as ``teacher_width``, or in a float16 model.
        """
        now = self._now()
        acoustic, linguistic = self.graphs(features, lengths, teacher, teacher_lengths, frame_weights)
        with torch.autocast(features.device.type, enabled=False):
            if self.pooling is None:
                plan, distance, stats = self._transported(acoustic, linguistic, now)
            else:
                plan, distance, stats = self._pooled(acoustic, linguistic)
            plan = self.coupling(plan)
            align = alignment(acoustic.nodes, linguistic.nodes, plan, teacher_lengths)
            values = distance + self.config.w_align * align
            loss = now.weight * values.mean()
        self.values = values.detach()
        stats = {"loss_gmot": loss, "loss_align": align.mean(), **stats}
        if self.mix is not None:
            stats |= {f"mix_{layer}": share for layer, share in zip(self.config.layers, self.mix.weights, strict=True)}
        return loss, {name: value.detach() for name, value in stats.items()}

    def graphs(
        self,
        features: torch.Tensor,
        lengths: torch.Tensor,
        teacher: torch.Tensor,
        teacher_lengths: torch.Tensor,
        frame_weights: torch.Tensor | None = None,
    ) -> tuple[Graph, Graph]:
        """The acoustic and the linguistic graphs of a batch; arguments and errors are those of :meth:`forward`.

        In training the running mean of the teacher's features takes the batch in.
        """
        precision = self.adapter.norm.weight.dtype
        if precision not in (torch.float32, torch.float64):
            raise UserError(f"gmot: the transfer doesn't train in {precision}: set train_dtype: float32, use_amp: true")
        if teacher.shape[-1] != self.config.teacher_width:
            raise UserError(
                f"gmot_conf: teacher_width is {self.config.teacher_width}, but the teacher's features have "
                f"{teacher.shape[-1]} columns: set teacher_width: {teacher.shape[-1]}"
            )
        with torch.autocast(features.device.type, enabled=False):
            # whatever stands on padding, not even a nan gets further
            features = features.to(precision).masked_fill(~valid(lengths, features.shape[1])[..., None], 0.0)
            teacher = teacher.to(precision).masked_fill(~valid(teacher_lengths, teacher.shape[1])[..., None], 0.0)
            weights = None if frame_weights is None else frame_weights.to(precision)
            acoustic = Graph(self.adapter(features), lengths, weights).pooled(self.config.pool)
            rows = self._centred(teacher, teacher_lengths)
            # centred first: the mean of a mix that changes would lag behind
            return acoustic, Graph(rows if self.mix is None else self.mix(rows), teacher_lengths)

    def _transported(
        self, acoustic: Graph, linguistic: Graph, now: Now
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Plan, weighted distance (B,) and statistics of the transport."""
        result = self.transport(acoustic, linguistic, now)
        stats = {
            "loss_wd": result.linear.mean(),
            "loss_gwd": result.quadratic.mean(),
            "marginal_error": result.marginal_error.mean(),
            "iterations": result.iterations.float().mean(),
            "converged": result.converged.float().mean(),
        }
        if math.isfinite(max(self.config.rho_acoustic, self.config.rho_linguistic)):  # else it is 1
            stats["mass"] = result.plan.detach().sum((1, 2)).mean()  # distances fall with it, and mean nothing then
        return result.plan, self.config.w_ot * result.value, stats

    def _pooled(self, acoustic: Graph, linguistic: Graph) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Coupling, weighted quantity loss (B,) and statistics of the pooling."""
        assert self.pooling is not None
        plan, quantity = self.pooling(acoustic.nodes, acoustic.lengths, linguistic.lengths, linguistic.nodes.shape[1])
        nothing = (linguistic.lengths == 0) | (acoustic.lengths == 0)
        quantity = quantity.masked_fill(nothing, 0.0)
        return plan, self.config.w_quantity * quantity, {"loss_quantity": quantity.mean()}

    def residual(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, T, width) plus what the adapter's linear map says of them, mapped back."""
        assert self.back is not None, "residual: true makes it"
        mapped: torch.Tensor = self.back(self.adapter.map(features))
        return features + mapped

    def transport(self, acoustic: Graph, linguistic: Graph, now: Now | None = None) -> FGWResult:
        """Couple the two graphs as the options say.

        Args:
            acoustic: nodes (B, T, D).
            linguistic: nodes (B, U, D).
            now: the moment of training; its end by default.
        """
        config = self.config
        now = now or Now(1.0, config.alpha, config.epsilon)
        cost = cosine_cost(acoustic.nodes, linguistic.nodes)
        sizes = (acoustic.lengths, linguistic.lengths, cost.shape[1], cost.shape[2])
        prior = None
        if config.prior == "order":
            prior = order_prior(
                *sizes,
                lambda1=config.order_lambda1,
                lambda2=config.order_lambda2,
                delta=config.order_delta,
                acoustic_weights=acoustic.weights,
            )
        elif config.prior == "band":
            prior = diagonal_prior(
                *sizes, width=config.band_width, weight=config.band_weight, acoustic_weights=acoustic.weights
            )
        return fused_gromov_wasserstein(
            cost,
            *self.edges(acoustic, linguistic),
            acoustic.lengths,
            linguistic.lengths,
            acoustic_weights=acoustic.weights,
            prior=prior,
            options=solver_options(config, now),
        )

    def edges(self, acoustic: Graph, linguistic: Graph) -> tuple[Edges, Edges]:
        """The edges of both graphs, weighted as the options say."""
        config = self.config
        return (
            acoustic.edges(config.feature_edges, config.temporal_edges, config.temporal_radius_acoustic),
            linguistic.edges(config.feature_edges, config.temporal_edges, config.temporal_radius_linguistic),
        )

    def _centred(self, teacher: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The teacher's features, zeros on padding, less the mean of all rows seen in training so far."""
        if not self.config.centre:
            return teacher
        if self.training:
            total = torch.cat([teacher.sum((0, 1)), lengths.sum()[None].float()])
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(total)  # the mean is that of the global batch, as in one process
            # ESPnet skips a step that isn't finite; one such batch must not stay in the mean for good
            total = torch.where(torch.isfinite(total).all(), total, torch.zeros_like(total))
            rows = total[-1]
            self.teacher_rows += rows
            mean = total[:-1] / rows.clamp(min=1)
            self.teacher_mean += (mean - self.teacher_mean) * (rows / self.teacher_rows.clamp(min=1)).float()
        return teacher - self.teacher_mean

    def _now(self) -> Now:
        """The moment of training; the first training step after a validation begins another epoch."""
        if self.training and (self.config.schedule_unit == "step" or self._pass_begins):
            self.time += 1
        self._pass_begins = not self.training
        if not self.config.scheduled:  # no reason to wait for the device
            return Now(1.0, self.config.alpha, self.config.epsilon)
        return at(self.config, self.time.item())


class LayeredLoss(torch.nn.Module):
    """Several transfers at once: every acoustic place has its layer of the teacher, or its own mix of them all.

    Args:
        config: the options; ``tap`` is a list, and ``teacher_layer`` too.
        widths: columns of the acoustic features at each place.

    Hierarchical transfer as in HCSA (arXiv 2309.16093).
    """

    def __init__(self, config: GMOTConfig, widths: list[int]) -> None:
        super().__init__()
        self.mixed = config.teacher_mix
        single = config.to_dict()
        if not config.teacher_mix:
            single |= {
                "teacher_width": config.teacher_width and config.teacher_width // len(widths),
                "teacher_layer": -1,
            }
        self.losses = torch.nn.ModuleList(
            GMOTLoss(GMOTConfig(**{**single, "tap": place}), width)
            for place, width in zip(config.taps, widths, strict=True)
        )

    @property
    def values(self) -> torch.Tensor:
        """(B,) what each utterance of the last batch added, the sum of all transfers."""
        return torch.stack([loss.values for loss in self.losses if isinstance(loss, GMOTLoss)]).sum(0)

    def forward(
        self,
        features: list[tuple[torch.Tensor, torch.Tensor]],
        teacher: torch.Tensor,
        teacher_lengths: torch.Tensor,
        frame_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The mean of the transfers and of their statistics.

        Args:
            features: acoustic features (B, T, width) and their lengths (B,), one pair for every place.
            teacher: (B, U, layers * D) the teacher's layers side by side.
            teacher_lengths: (B,) their tokens.
            frame_weights: (B, T) how much each frame counts, or None for all alike.
        """
        layers = [teacher] * len(self.losses) if self.mixed else teacher.tensor_split(len(self.losses), dim=-1)
        results = [
            loss(nodes, lengths, layer, teacher_lengths, frame_weights)
            for loss, (nodes, lengths), layer in zip(self.losses, features, layers, strict=True)
        ]
        stats = {name: torch.stack([each[name] for _, each in results]).mean() for name in results[0][1]}
        return torch.stack([loss for loss, _ in results]).mean(), stats


def solver_options(config: GMOTConfig, now: Now) -> Options:
    """The solver's options: those of `config` by name, alpha and epsilon as they are now."""
    options = {field.name: getattr(config, field.name) for field in fields(Options)}
    return Options(**{**options, "alpha": now.alpha, "epsilon": now.epsilon})


def alignment(
    acoustic: torch.Tensor, linguistic: torch.Tensor, plan: torch.Tensor, linguistic_lengths: torch.Tensor
) -> torch.Tensor:
    """ALIGN = mean_j (1 - cos(z̃_j, z_j)), z̃ = acoustic features carried to the tokens by the plan, of each sample.

    Args:
        acoustic: (B, T, D).
        linguistic: (B, U, D).
        plan: (B, T, U) the transport plan; its columns need not have mass, but count as 1 then.
        linguistic_lengths: (B,) tokens.

    Returns:
        (B,) the mean over the tokens of each sample; 0 where it has none, or its plan no mass.
    """
    # The barycentric projection divides by the column sums; the cosine doesn't feel that division
    carried = plan.mT @ acoustic
    cosine = torch.nn.functional.cosine_similarity(carried / _scale(plan), linguistic, dim=-1, eps=1e-8)
    inside = valid(linguistic_lengths, linguistic.shape[1]) & (plan.detach() > 0).flatten(1).any(1)[:, None]
    return ((1.0 - cosine) * inside).sum(1) / linguistic_lengths.clamp(min=1)


def _scale(plan: torch.Tensor) -> torch.Tensor:
    """Column sums (B, U, 1) of a plan, never so small that the gradient of a token without mass overflows."""
    return plan.sum(1).clamp(min=1e-20)[..., None]

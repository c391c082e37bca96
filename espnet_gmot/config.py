"""Every option of the transfer loss, once: default, meaning, range, when it is read, and the presets that fill it.

The options are what a user writes under ``model_conf: gmot_conf:`` in an ESPnet configuration.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from espnet_gmot.errors import UserError
from espnet_gmot.fields import When, checked, closest, option, written
from espnet_gmot.presets import PRESETS

#: Old names of options, still read.
RENAMED = {"stack": "pool"}

_SOLVED = When("coupling", ("transport",))
_ORDER, _BAND = When("prior", ("order",)), When("prior", ("band",))
_COST, _TIME = "units of the cost", "schedule units"


@dataclass(frozen=True)
class GMOTConfig:
    """Options of the transfer from a pretrained language model (PLM) to the acoustic encoder.

    What each means, its range and when it is read are its field's metadata, see :func:`espnet_gmot.fields.option`. The
    solver's options travel by name to :class:`espnet_gmot.transport.Options`.

    Raises:
        UserError: for an unknown preset or choice, a number outside its range, an option that would be ignored, or
            options that contradict each other.
    """

    preset: str = option(
        "gmot",
        "member of the family whose settings replace the defaults; single keys override them",
        choices=tuple(PRESETS),
    )
    # the graphs
    tap: str | list[str] = option(
        "encoder",
        "where the acoustic graph comes from: encoder (its output), encoder.N (block N, from 0) or frontend; a list "
        "ties several places to the layers in teacher_layer, one transfer a pair",
    )
    pool: int = option(1, "frames averaged into one node of the acoustic graph", within=(1, 64), unit="frames")
    frame_weights: str = option(
        "uniform",
        "how much each frame counts, for the marginals and for the time that a prior counts: all alike, or blank for "
        "1 - p(blank) of the CTC head, detached",
        choices=("uniform", "blank"),
    )
    feature_edges: float = option(
        1.0, "weight of the feature edges 1 - cos(h_i, h_k)", within=(0.0, 1e6), read_only_if=_SOLVED
    )
    temporal_edges: float = option(
        0.0, "weight of the temporal edges |i - k| / length", within=(0.0, 1e6), read_only_if=_SOLVED
    )
    temporal_radius_acoustic: int | None = option(
        None,
        "distance from which all pairs of frames are equally far: temporal edges min(|i - k|, radius) / radius",
        within=(1, 1e6),
        unit="nodes of the acoustic graph",
        read_only_if=When("temporal_edges"),
    )
    temporal_radius_linguistic: int | None = option(
        None,
        "likewise for pairs of tokens; both radii or neither",
        within=(1, 1e6),
        unit="tokens",
        read_only_if=When("temporal_edges"),
    )
    # how they meet
    coupling: str = option(
        "transport",
        "how frames meet tokens: transport, or for comparison attention or cif pooling",
        choices=("transport", "attention", "cif"),
    )
    alpha: float = option(
        0.5,
        "share of the edges, FGWD = alpha * GWD + (1 - alpha) * WD: 0 is Wasserstein only, 1 Gromov-Wasserstein only",
        within=(0.0, 1.0),
        read_only_if=_SOLVED,
    )
    method: str = option(
        "proximal",
        "proximal (its limit is the unregularised plan) or mirror (the entropic plan at epsilon)",
        choices=("proximal", "mirror"),
        read_only_if=_SOLVED,
    )
    epsilon: float = option(0.05, "the solver's entropic step", within=(1e-6, 1e6), read_only_if=_SOLVED)
    epsilon_relative: bool = option(
        True, "epsilon counts in each sample's mean cost; false: in units of the cost", read_only_if=_SOLVED
    )
    rho_acoustic: float = option(
        math.inf,
        "strength of the frames' marginals; inf is balanced",
        within=(0.0, math.inf),
        unit=_COST,
        read_only_if=_SOLVED,
    )
    rho_linguistic: float = option(
        math.inf,
        "strength of the tokens' marginals; inf is balanced",
        within=(0.0, math.inf),
        unit=_COST,
        read_only_if=_SOLVED,
    )
    prior: str = option(
        "none",
        "cost that prefers monotonic plans: order (order-preserving, Su and Hua 2017), band (free around the diagonal) "
        "or none",
        choices=("none", "order", "band"),
        read_only_if=_SOLVED,
    )
    order_lambda1: float = option(
        50.0, "weight of the inverse difference moment", within=(0.0, 1e6), unit=_COST, read_only_if=_ORDER
    )
    order_lambda2: float = option(
        0.1, "weight of the Gaussian around the diagonal", within=(0.0, 1e6), unit=_COST, read_only_if=_ORDER
    )
    order_delta: float = option(
        1.0, "deviation of that Gaussian", within=(1e-3, 1e6), unit="the diagonal's thickness", read_only_if=_ORDER
    )
    band_width: float = option(
        0.1, "half width of the free band", within=(0.0, 1.0), unit="share of the utterance", read_only_if=_BAND
    )
    band_weight: float = option(
        10.0,
        "slope of the cost outside the band",
        within=(0.0, 1e6),
        unit="units of the cost per share of the utterance",
        read_only_if=_BAND,
    )
    # the solver's effort
    outer_iterations: int = option(
        20, "most linearisations of the quadratic part", within=(1, 10_000), read_only_if=_SOLVED
    )
    inner_iterations: int = option(50, "Sinkhorn steps in each", within=(1, 10_000), read_only_if=_SOLVED)
    tolerance: float = option(
        0.05,
        "where a sample stops: one bound for the plan's last movement (L1), the error of its marginals (L1) and, by "
        "the proximal method, its duality gap in units of its mean cost. Training's 0.05 (with 20 x 50 steps; the "
        "solver's own defaults are 0.003 and 100 x 100) takes a third of the time and leaves a distance 0.1 to "
        "2.4 % higher",
        within=(0.0, 1.0),
        read_only_if=_SOLVED,
    )
    annealing: float = option(
        1.0,
        "factor on epsilon at the first outer step, gone by half of them: slower, better minima",
        within=(1.0, 1e6),
        read_only_if=_SOLVED,
    )
    plan_gradient: str = option(
        "detached",
        "whether the alignment loss moves the plan too: detached, or implicit (needs method: mirror)",
        choices=("detached", "implicit"),
        read_only_if=_SOLVED,
    )
    # says where a plan is computed rather than which, so that it may stand where none is
    backend: str = option("auto", "who solves it", choices=("auto", "torch", "numba", "pot"))
    # the loss
    w_ot: float = option(
        1.0, "weight of FGWD, the distance, beside the ASR loss", within=(0.0, 1e6), read_only_if=_SOLVED
    )
    w_align: float = option(1.0, "weight of the alignment loss beside the ASR loss", within=(0.0, 1e6))
    w_quantity: float = option(
        1.0,
        "weight of the quantity loss, the squared error of the number of tokens, relative to it",
        within=(0.0, 1e6),
        read_only_if=When("coupling", ("cif",)),
    )
    # its course
    schedule_unit: str = option(
        "step", "what the schedules count: batches, whatever accum_grad says, or epochs", choices=("step", "epoch")
    )
    warmup: int = option(0, "time over which the weights rise linearly from 0", within=(0, 1e9), unit=_TIME)
    hold: int = option(0, "time between warm-up and decay", within=(0, 1e9), unit=_TIME, read_only_if=When("decay"))
    decay: int = option(
        0, "time over which the weights fall linearly to 0 again; 0 is never", within=(0, 1e9), unit=_TIME
    )
    alpha_warmup: int = option(
        0, "time over which alpha rises linearly from 0", within=(0, 1e9), unit=_TIME, read_only_if=_SOLVED
    )
    epsilon_start: float = option(
        0.0,
        "epsilon at the start, from where it shrinks geometrically; 0 is epsilon all the way",
        within=(0.0, 1e6),
        read_only_if=When("epsilon_decay"),
    )
    epsilon_decay: int = option(
        0,
        "time over which epsilon_start shrinks to epsilon",
        within=(0, 1e9),
        unit=_TIME,
        read_only_if=When("epsilon_start"),
    )
    # the way into the teacher's space
    adapter: str = option(
        "linear", "map from the encoder's width to the teacher's, before a LayerNorm", choices=("linear", "mlp")
    )
    adapter_hidden: int = option(
        512, "width of the mlp adapter", within=(1, 65_536), unit="hidden units", read_only_if=When("adapter", ("mlp",))
    )
    residual: bool = option(
        False,
        "add what the linear adapter says, mapped back, to the input of the CTC head; export merges both maps into it",
    )
    # the teacher
    teacher: str | None = option(
        None,
        "folder or hub name of a Hugging Face encoder to run online; null: read the data stream teacher that "
        "dump-teacher wrote",
    )
    teacher_width: int | None = option(
        None,
        "columns of the teacher's features, those of all its layers together; needed where teacher is null",
        within=(1, 65_536),
        unit="columns",
    )
    teacher_layer: int | list[int] = option(
        -1,
        "hidden layer of the teacher (-1 is the last); a list has one for every tap, or with teacher_mix those to mix",
    )
    teacher_mix: bool = option(
        False, "learn a mix of the layers in teacher_layer (espnet_gmot.mix.LayerMix); every tap has its own"
    )
    teacher_stats: str | None = option(
        None,
        "folder of a dump-teacher --normalise run whose statistics the online teacher uses",
        read_only_if=When("teacher"),
    )
    special_tokens: bool = option(
        False, "keep the online teacher's rows of [CLS] and [SEP]", read_only_if=When("teacher")
    )
    centre: bool = option(
        True,
        "subtract the running mean of the teacher's features (PLM spaces are anisotropic); false for features that "
        "dump-teacher --normalise or teacher_stats has centred exactly, which it would undo",
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))
        self._check_layers()
        self._check_transport()
        self._check_read()
        if not self.transfers and self.preset != "ctc":
            raise UserError(
                f"gmot_conf: preset: {self.preset} learns nothing with these weights: raise {self._weights}, or set "
                "preset: ctc for the stock model"
            )

    def _check_read(self) -> None:
        """An option that would be ignored is a mistake; one that stands at its default, or its preset's, is none."""
        settings = PRESETS[self.preset]
        for field in fields(self):
            when, value = field.metadata["read_only_if"], getattr(self, field.name)
            usual = settings.get(field.name, field.default)
            if when is None or when.holds(self) or value in (field.default, usual):
                continue
            raise UserError(
                f"gmot_conf: {field.name}: {written(value)} would be ignored: it is read only {when}; set that, or "
                f"{field.name}: {written(usual)}"
            )

    def _check_layers(self) -> None:
        """Taps, layers and their columns."""
        if self.residual and (self.adapter != "linear" or self.tap != "encoder"):
            raise UserError(
                "gmot_conf: residual: true needs adapter: linear and tap: encoder, to merge into the CTC head"
            )
        if self.teacher_mix and len(self.layers) < 2:
            raise UserError(
                f"gmot_conf: teacher_mix: true mixes several layers, but teacher_layer is {self.teacher_layer}: "
                "give a list, such as [4, 8, 12]"
            )
        alike = isinstance(self.tap, list) == isinstance(self.teacher_layer, list)
        if not self.teacher_mix and not (alike and len(self.taps) == len(self.layers)):
            raise UserError(
                f"gmot_conf: tap: {self.tap} and teacher_layer: {self.teacher_layer} are no pairs: "
                "give one of each, two lists of as many, or teacher_mix: true"
            )
        if self.teacher_width is not None and self.teacher_width % len(self.layers):
            raise UserError(
                f"gmot_conf: teacher_width: {self.teacher_width} is not that of {len(self.layers)} layers side by "
                f"side: give dump-teacher the layers {self.layers}"
            )
        if self.frame_weights == "blank" and "frontend" in self.taps:
            raise UserError("gmot_conf: frame_weights: blank weighs the encoder's frames, but tap: frontend has others")

    def _check_transport(self) -> None:
        """Edges, plan and gradient."""
        entropic = self.coupling == "transport" and self.method == "mirror" and self.backend != "pot"
        if self.plan_gradient == "implicit" and not entropic:
            raise UserError(
                "gmot_conf: plan_gradient: implicit needs coupling: transport, method: mirror and a backend other than "
                "pot: no other plan moves smoothly"
            )
        if self.frame_weights != "uniform" and self.coupling != "transport" and self.pool == 1:
            raise UserError(
                f"gmot_conf: frame_weights: {self.frame_weights} would be ignored: coupling: {self.coupling} weighs "
                "frames by itself; set frame_weights: uniform, or coupling: transport"
            )
        if (self.temporal_radius_acoustic is None) != (self.temporal_radius_linguistic is None):
            raise UserError(
                "gmot_conf: temporal_radius_acoustic and temporal_radius_linguistic go together: give both, or neither"
            )
        if self.feature_edges == 0 and self.temporal_edges == 0 and self.alpha > 0:
            raise UserError("gmot_conf: feature_edges and temporal_edges are both 0: raise one, or set alpha: 0")
        if self.coupling == "transport" and self.alpha == 1 and self.w_align == 0 and self.feature_edges == 0:
            raise UserError(
                "gmot_conf: alpha: 1 with temporal edges alone looks at no feature, so nothing would learn: "
                "raise feature_edges or w_align, or lower alpha"
            )

    @classmethod
    def from_dict(cls, options: Mapping[str, Any] | None) -> "GMOTConfig":
        """Resolve what a user wrote: the preset's settings, overridden by single keys.

        Args:
            options: the content of ``gmot_conf``; old names are read too, with a warning.

        Raises:
            UserError: for an unknown key, naming the closest one, and for every bad value.
        """
        known = {field.name: field for field in fields(cls)}
        if not isinstance(options or {}, Mapping):
            raise UserError(f"gmot_conf: {options!r}: give `option: value` lines")
        options = _renamed(dict(options or {}), {name: field.default for name, field in known.items()})
        for key in options:
            if key not in known:
                raise UserError(f"gmot_conf: unknown option '{key}'{closest(str(key), list(known))}")
        preset = checked(known["preset"], options.get("preset", known["preset"].default))
        return cls(**{**PRESETS[preset], **options})

    @property
    def taps(self) -> list[str]:
        """The places of the acoustic graphs, one for every transfer."""
        return self.tap if isinstance(self.tap, list) else [self.tap]

    @property
    def layers(self) -> list[int]:
        """The teacher's layers, one for every transfer."""
        return self.teacher_layer if isinstance(self.teacher_layer, list) else [self.teacher_layer]

    def to_dict(self) -> dict[str, Any]:
        """The resolved options, as plain YAML values."""
        return asdict(self)

    @property
    def transfers(self) -> bool:
        """Whether any transfer loss is on; if not, the model is the stock one."""
        return any(getattr(self, name) > 0 for name in self._weights.split(" or "))

    @property
    def _weights(self) -> str:
        """The weights that count with this coupling."""
        return {"transport": "w_ot or w_align", "attention": "w_align", "cif": "w_align or w_quantity"}[self.coupling]

    @property
    def scheduled(self) -> bool:
        """Whether anything changes in the course of training."""
        return bool(self.warmup or self.decay or self.alpha_warmup or self.epsilon_decay)


def _renamed(options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The options under their present names; an old name beside the new one counts where it was set."""
    for old, new in RENAMED.items():
        if old not in options:
            continue
        value = options.pop(old)
        if new not in options:
            warnings.warn(f"gmot_conf: '{old}' is now called '{new}': rename it", FutureWarning, stacklevel=3)
            options[new] = value
        elif value not in (options[new], defaults[new]):
            raise UserError(
                f"gmot_conf: {old}: {value} and {new}: {options[new]} contradict each other: '{old}' is the old name "
                f"of '{new}', remove it"
            )
    return options

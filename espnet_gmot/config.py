"""Every option of the transfer loss, once: default, unit, range and the presets that fill it.

The options are what a user writes under ``model_conf: gmot_conf:`` in an ESPnet configuration.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from espnet_gmot.errors import UserError

#: What each preset sets beside the defaults of :class:`GMOTConfig`, with the paper that it follows.
PRESETS: dict[str, dict[str, Any]] = {
    "ctc": {"w_ot": 0.0, "w_align": 0.0},  # no transfer: the stock ESPnet model
    # those of the optimal-transport papers take the entropic plan; GM-OT's, ours, the proximal limit
    "ot": {"alpha": 0.0, "method": "mirror"},  # ASRU 2023, arXiv 2309.13650
    # ICASSP 2024, arXiv 2309.16093: one transfer a tied pair of layers; these suit 12 blocks and a 12-layer PLM
    "hcsa": {
        "alpha": 0.0,
        "method": "mirror",
        "tap": ["encoder.3", "encoder.7", "encoder"],
        "teacher_layer": [4, 8, 12],
    },
    # SLT 2024, arXiv 2409.02239; the prior's lambda2 is its entropic step, in units of the cost
    "tot": {"alpha": 0.0, "method": "mirror", "prior": "order", "epsilon": 0.1, "epsilon_relative": False},
    "uot": {"alpha": 0.0, "method": "mirror", "rho_acoustic": 0.1},  # arXiv 2509.05609
    "gmot": {},  # Interspeech 2025, arXiv 2505.13079
    "gmot-t": {"prior": "order"},  # ours: GM-OT with the temporal-order prior
    "gmot-u": {"rho_acoustic": 0.1},  # ours: GM-OT with relaxed frame marginals
    "kd-att": {"coupling": "attention", "w_ot": 0.0},  # after arXiv 2203.03582: no transport, for comparison
    "kd-cif": {"coupling": "cif", "w_ot": 0.0},
}

_CHOICES = {
    "preset": tuple(PRESETS),
    "method": ("proximal", "mirror"),
    "coupling": ("transport", "attention", "cif"),
    "prior": ("none", "order", "band"),
    "schedule_unit": ("step", "epoch"),
    "adapter": ("linear", "mlp"),
    "frame_weights": ("uniform", "blank"),
    "plan_gradient": ("detached", "implicit"),
    "backend": ("auto", "torch", "numba", "pot"),
}
_RANGES = {
    "alpha": (0.0, 1.0, "the share of the edges (0 = Wasserstein only, 1 = Gromov-Wasserstein only)"),
    "epsilon": (1e-6, 1e6, "the entropic step"),
    "rho_acoustic": (0.0, math.inf, "the strength of the frame marginals (inf = balanced)"),
    "rho_linguistic": (0.0, math.inf, "the strength of the token marginals (inf = balanced)"),
    "order_lambda1": (0.0, 1e6, "the weight of the order prior's inverse difference moment, in units of the cost"),
    "order_lambda2": (0.0, 1e6, "the weight of the order prior's Gaussian, in units of the cost"),
    "order_delta": (1e-3, 1e6, "the deviation of the order prior's Gaussian"),
    "band_width": (0.0, 1.0, "the half width of the free band, as a fraction of the utterance"),
    "band_weight": (0.0, 1e6, "the slope of the cost outside the band"),
    "outer_iterations": (1, 10_000, "linearisations of the quadratic part"),
    "inner_iterations": (1, 10_000, "Sinkhorn steps per linearisation"),
    "tolerance": (0.0, 1.0, "the change of the plan at which a sample stops"),
    "feature_edges": (0.0, 1e6, "the weight of the feature edges 1 - cos"),
    "temporal_edges": (0.0, 1e6, "the weight of the temporal edges |i - k| / length"),
    "stack": (1, 64, "frames averaged into one node of the acoustic graph"),
    "w_ot": (0.0, 1e6, "the weight of the fused Gromov-Wasserstein distance"),
    "w_align": (0.0, 1e6, "the weight of the alignment loss"),
    "w_quantity": (0.0, 1e6, "the weight of the quantity loss of coupling: cif"),
    "warmup": (0, 1e9, "schedule units over which the weights rise from 0"),
    "hold": (0, 1e9, "schedule units between warm-up and decay"),
    "decay": (0, 1e9, "schedule units over which the weights fall to 0 again (0 = never)"),
    "alpha_warmup": (0, 1e9, "schedule units over which alpha rises from 0"),
    "epsilon_start": (0.0, 1e6, "the entropic step at the start (0 = epsilon all the way)"),
    "epsilon_decay": (0, 1e9, "schedule units over which epsilon_start shrinks to epsilon"),
    "adapter_hidden": (1, 65_536, "hidden units of the mlp adapter"),
    "teacher_width": (1, 65_536, "columns of the teacher's features"),
}


@dataclass(frozen=True)
class GMOTConfig:
    """Options of the transfer from a pretrained language model (PLM) to the acoustic encoder.

    Attributes:
        preset: member of the family whose settings replace the defaults below; single keys override it.
        tap: where the acoustic graph comes from: ``encoder`` (its output), ``encoder.N`` (block N, from 0)
            or ``frontend``; a list ties several places to the layers in ``teacher_layer``, one transfer a pair.
        stack: frames averaged into one node of the acoustic graph.
        frame_weights: ``uniform``, or ``blank`` for 1 - p(blank) of the CTC head, detached.
        feature_edges, temporal_edges: weights of the edges 1 - cos(h_i, h_k) and of |i - k| / length.
        coupling: how frames meet tokens: ``transport``, or for comparison ``attention`` or ``cif`` pooling.
        alpha: share of the edges: FGWD = alpha * GWD + (1 - alpha) * WD.
        method: ``proximal`` (its limit is the unregularised plan) or ``mirror`` (the entropic plan at epsilon).
        epsilon: entropic step of the solver.
        epsilon_relative: epsilon counts in each sample's mean cost; else in units of the cost.
        rho_acoustic, rho_linguistic: strength of the marginals of frames and tokens; ``inf`` is balanced.
        prior: ``order`` (order-preserving, Su and Hua 2017), ``band`` (diagonal band) or ``none``.
        order_lambda1, order_lambda2, order_delta: the order prior, see :func:`espnet_gmot.transport.order_prior`.
        band_width, band_weight: the band, see :func:`espnet_gmot.transport.diagonal_prior`.
        outer_iterations, inner_iterations, tolerance: the solver's effort.
        plan_gradient: whether the alignment loss moves the plan too: ``detached``, or ``implicit`` (needs ``mirror``).
        backend: ``auto``, ``torch``, ``numba`` or ``pot``.
        w_ot, w_align: weights of FGWD and of the alignment loss beside the ASR loss.
        w_quantity: weight of the quantity loss of ``cif`` (squared error of the number of tokens, relative to it).
        schedule_unit: what the schedules count, ``step`` (batches, whatever accum_grad says) or ``epoch``.
        warmup, hold, decay: the weights rise linearly from 0, stay for ``hold``, then fall to 0 over ``decay``.
        alpha_warmup: alpha rises linearly from 0.
        epsilon_start, epsilon_decay: epsilon shrinks geometrically from the one to its value over the other.
        adapter: ``linear`` or ``mlp``, from the encoder's width to the teacher's, then LayerNorm.
        adapter_hidden: hidden units of the ``mlp`` adapter.
        residual: add what the linear adapter says, mapped back, to the input of the CTC head; the two linear maps can
            be merged into that head after training (``export`` does).
        teacher: folder or hub name of a Hugging Face encoder to run online, or None to read the data stream
            ``teacher`` that ``dump-teacher`` wrote.
        teacher_width: columns of the teacher's features, those of all its layers together; needed where ``teacher``
            is None.
        teacher_layer: hidden layer of the online teacher (-1 is the last); a list has one for every tap, or with
            ``teacher_mix`` those to mix.
        teacher_mix: learn a mix of the layers in ``teacher_layer``, see :class:`espnet_gmot.mix.LayerMix`; every tap
            has its own.
        teacher_stats: folder of a dump-teacher --normalise run whose statistics the online teacher uses.
        special_tokens: keep the online teacher's rows of [CLS] and [SEP].
        centre: subtract the running mean of the teacher's features (PLM spaces are anisotropic); false for features
            that ``dump-teacher --normalise`` or ``teacher_stats`` has centred exactly, which it would undo.

    Raises:
        UserError: for an unknown preset or choice, or a number outside its range.
    """

    preset: str = "gmot"
    tap: str | list[str] = "encoder"
    stack: int = 1
    frame_weights: str = "uniform"
    feature_edges: float = 1.0
    temporal_edges: float = 0.0
    coupling: str = "transport"
    alpha: float = 0.5
    method: str = "proximal"
    epsilon: float = 0.05
    epsilon_relative: bool = True
    rho_acoustic: float = math.inf
    rho_linguistic: float = math.inf
    prior: str = "none"
    order_lambda1: float = 50.0
    order_lambda2: float = 0.1
    order_delta: float = 1.0
    band_width: float = 0.1
    band_weight: float = 10.0
    outer_iterations: int = 20
    inner_iterations: int = 50
    tolerance: float = 0.05
    plan_gradient: str = "detached"
    backend: str = "auto"
    w_ot: float = 1.0
    w_align: float = 1.0
    w_quantity: float = 1.0
    schedule_unit: str = "step"
    warmup: int = 0
    hold: int = 0
    decay: int = 0
    alpha_warmup: int = 0
    epsilon_start: float = 0.0
    epsilon_decay: int = 0
    adapter: str = "linear"
    adapter_hidden: int = 512
    residual: bool = False
    teacher: str | None = None
    teacher_width: int | None = None
    teacher_layer: int | list[int] = -1
    teacher_mix: bool = False
    teacher_stats: str | None = None
    special_tokens: bool = False
    centre: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            object.__setattr__(self, field.name, _checked(field.name, value, field.default))
        self._check_together()

    def _check_together(self) -> None:
        """What single options can't tell."""
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
        entropic = self.coupling == "transport" and self.method == "mirror" and self.backend != "pot"
        if self.plan_gradient == "implicit" and not entropic:
            raise UserError(
                "gmot_conf: plan_gradient: implicit needs coupling: transport, method: mirror and a backend other than "
                "pot: no other plan moves smoothly"
            )
        if self.frame_weights == "blank" and "frontend" in self.taps:
            raise UserError("gmot_conf: frame_weights: blank weighs the encoder's frames, but tap: frontend has others")
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
            options: the content of ``gmot_conf``.

        Raises:
            UserError: for an unknown key, naming the closest one, and for every bad value.
        """
        options = dict(options or {})
        names = [field.name for field in fields(cls)]
        for key in options:
            if key not in names:
                raise UserError(f"gmot_conf: unknown option '{key}'{closest(key, names)}")
        preset = _checked("preset", options.get("preset", "gmot"), "")
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
        return self.w_ot > 0 or self.w_align > 0 or (self.coupling == "cif" and self.w_quantity > 0)

    @property
    def scheduled(self) -> bool:
        """Whether anything changes in the course of training."""
        return bool(self.warmup or self.decay or self.alpha_warmup or self.epsilon_decay)


def closest(word: str, words: list[str] | tuple[str, ...]) -> str:
    """A hint for a misspelt word: the closest known one, or all of them."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f": did you mean '{near[0]}'?" if near else f": known are {', '.join(words)}"


def _checked(name: str, value: Any, default: Any) -> Any:
    """The value in the type of its default, or a UserError that names option, value and fix."""
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise UserError(f"gmot_conf: {name}: unknown value '{value}'{closest(str(value), _CHOICES[name])}")
        return value
    if name in _RANGES:
        return _number(name, value, whole=isinstance(default, int) or default is None)
    if name == "tap" and isinstance(value, list) and value and all(isinstance(place, str) for place in value):
        return list(value)
    if name == "teacher_layer":
        return _layers(value)
    if name in ("teacher", "teacher_stats") and not isinstance(value, str):
        raise UserError(f"gmot_conf: {name}: got {value!r}, expected a folder" + " or a hub name" * (name == "teacher"))
    if isinstance(default, bool) and not isinstance(value, bool):
        raise UserError(f"gmot_conf: {name}: got {value!r}, expected true or false")
    if isinstance(default, str) and not isinstance(value, str):
        raise UserError(f"gmot_conf: {name}: got {value!r}, expected text")
    return value


def _layers(value: Any) -> int | list[int]:
    """The teacher's layer or layers."""
    several = isinstance(value, list) and len(value) > 0
    if any(isinstance(layer, bool) or not isinstance(layer, int) for layer in (value if several else [value])):
        raise UserError(f"gmot_conf: teacher_layer: got {value!r}, expected a whole number or a list of them")
    return value


def _number(name: str, value: Any, *, whole: bool) -> float | int:
    low, high, meaning = _RANGES[name]
    try:
        # YAML 1.1 reads `1e-3` as text, and ESPnet's own options accept it: so do we
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:  # false for nan as well
        raise UserError(f"gmot_conf: {name}: got {value!r}, expected a number in [{low:g}, {high:g}]: {meaning}")
    if whole and number != int(number):
        raise UserError(f"gmot_conf: {name}: got {value!r}, expected a whole number: {meaning}")
    return int(number) if whole else number

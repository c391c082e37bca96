"""What `fused_gromov_wasserstein` receives for every option: the whole way from a user's word to the solver."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from espnet_gmot import loss as loss_module
from espnet_gmot.config import GMOTConfig
from espnet_gmot.loss import GMOTLoss, LayeredLoss
from espnet_gmot.transport import cosine_cost, cosine_edges, fused_gromov_wasserstein
from espnet_gmot.transport.edges import as_edges

WIDTH, TEACHER, SIZES = 6, 4, (9, 3)
LENGTHS, TOKENS = torch.tensor([9, 4]), torch.tensor([3, 2])
WEIGHTS = torch.linspace(0.1, 1.0, 18).view(2, 9)
ORDER = {"prior": "order", "order_lambda1": 7.0, "order_lambda2": 0.3, "order_delta": 2.0}
BAND = {"prior": "band", "band_width": 0.2, "band_weight": 3.0}
RADII = {"temporal_edges": 0.5, "temporal_radius_acoustic": 4, "temporal_radius_linguistic": 2}
LAYERS = {"teacher_layer": [1, 2], "teacher_width": 2 * TEACHER}
MIRROR = {"method": "mirror", "plan_gradient": "implicit"}
Received = dict[str, Any]


def batch(columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Acoustic features and the teacher's, off centre."""
    g = torch.Generator().manual_seed(2)
    return torch.randn(2, 9, WIDTH, generator=g), 1 + torch.randn(2, 3, columns, generator=g)


def train_a_step(monkeypatch: pytest.MonkeyPatch, config: GMOTConfig) -> tuple[Any, list[Received], Any, dict]:
    """A module of these options, what it asked of the solver in its first step of training, loss and statistics."""
    calls: list[Received] = []
    names = ("cost", "acoustic_edges", "linguistic_edges", "acoustic_lengths", "linguistic_lengths")

    def record(*args: Any, options: Any, **more: Any) -> Any:
        """Solve, keeping all arguments under their names, edges as matrices."""
        given = {**dict(zip(names, args, strict=True)), **more, **dataclasses.asdict(options)}
        calls.append(given | {name: as_edges(given[name]).dense() for name in ("acoustic_edges", "linguistic_edges")})
        return fused_gromov_wasserstein(*args, options=options, **more)

    monkeypatch.setattr(loss_module, "fused_gromov_wasserstein", record)
    features, teacher = batch(config.teacher_width)
    torch.manual_seed(1)
    if isinstance(config.tap, list):
        module = LayeredLoss(config, [WIDTH] * len(config.tap)).train()
        places = [(features, LENGTHS), (2 * features + 1, LENGTHS)]
        return module, calls, *module(places, teacher, TOKENS)
    module = GMOTLoss(config, WIDTH).train()
    weights = WEIGHTS if config.frame_weights == "blank" else None
    return module, calls, *module(features, LENGTHS, teacher, TOKENS, weights)


def nodes(acoustic: torch.Tensor, linguistic: torch.Tensor) -> Received:
    """What is made of features alone."""
    edges = {"acoustic_edges": cosine_edges(acoustic), "linguistic_edges": cosine_edges(linguistic)}
    return {"cost": cosine_cost(acoustic, linguistic), **edges}


def within(rows: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Rows (B, N, D) with zeros past each length, as no padding gets further."""
    return rows * (torch.arange(rows.shape[1]) < lengths[:, None])[..., None]


def features_of(module: GMOTLoss, centre: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Adapted features; the teacher's less the mean of their valid rows, and mixed."""
    features, teacher = batch(module.config.teacher_width)
    features, teacher = within(features, LENGTHS), within(teacher, TOKENS)
    if centre:
        teacher = teacher - torch.cat([rows[:n] for rows, n in zip(teacher, TOKENS.tolist(), strict=True)]).mean(0)
    return module.adapter(features), teacher if module.mix is None else module.mix(teacher)


def usual(module: GMOTLoss) -> Received:
    """What the solver receives where nothing but the module's features and the backend is chosen."""
    return {
        **nodes(*features_of(module)),
        "acoustic_lengths": LENGTHS,
        "linguistic_lengths": TOKENS,
        "acoustic_weights": None,
        "prior": None,
        "alpha": 0.5,
        "epsilon": 0.05,
        "epsilon_relative": True,
        "rho_acoustic": math.inf,
        "rho_linguistic": math.inf,
        "outer_iterations": 20,
        "inner_iterations": 50,
        "tolerance": 0.05,
        "method": "proximal",
        "annealing": 1.0,
        "plan_gradient": "detached",
        "backend": "torch",
    }


def prior(formula: Callable[[float, int, int], float], back: float = 0.0) -> torch.Tensor:
    """(B, T, U) by a formula of x = (i − back)/T − (j − back)/U counted from one, T and U; 0 on padding."""
    table = torch.zeros(2, *SIZES)
    for sample, (frames, tokens) in enumerate(zip(LENGTHS.tolist(), TOKENS.tolist(), strict=True)):
        for i in range(frames):
            for j in range(tokens):
                table[sample, i, j] = formula((i + 1 - back) / frames - (j + 1 - back) / tokens, frames, tokens)
    return table


def order(x: float, frames: int, tokens: int) -> float:
    """The prior of `ORDER` by its definition."""
    return 7.0 * x**2 / (1 + x**2) + 0.3 * x**2 / (1 / frames**2 + 1 / tokens**2) / (2 * 2.0**2)


def band(x: float, *_: int) -> float:
    """The prior of `BAND` by its definition."""
    return 3.0 * max(abs(x) - 0.2, 0.0)


def edges(feature: float, temporal: float, *radii: int) -> Callable[[GMOTLoss], Received]:
    """Weighted sums of the edges of features and of time, by their definition."""

    def change(module: GMOTLoss) -> Received:
        """Both edges."""
        found = {}
        for side, (lengths, size) in enumerate(zip((LENGTHS, TOKENS), SIZES, strict=True)):
            far = (torch.arange(size)[:, None] - torch.arange(size)).abs().float()
            time = [far.clamp(max=radii[side]) / radii[side] if radii else far / length for length in lengths]
            name = ("acoustic_edges", "linguistic_edges")[side]
            found[name] = feature * usual(module)[name] + temporal * torch.stack(time)
        return found

    return change


def in_pairs(module: GMOTLoss) -> Received:
    """Features averaged in pairs: the first sample has nine frames, so that the last stands alone; the other four."""
    pairs = torch.zeros(2, 5, 9)
    for sample, size in enumerate(LENGTHS.tolist()):
        for frame in range(size):
            pairs[sample, frame // 2, frame] = 1.0 if frame == 8 else 0.5
    acoustic, linguistic = features_of(module)
    weights = torch.tensor([[2.0, 2.0, 2.0, 2.0, 1.0], [2.0, 2.0, 0.0, 0.0, 0.0]])  # each frame counts alike
    changed = {"acoustic_lengths": torch.tensor([5, 2]), "acoustic_weights": weights}
    return nodes(pairs @ acoustic, linguistic) | changed


#: For each option, options that give it a value of its own, and what of the usual call that changes; None: no call.
CASES: dict[str, tuple[dict[str, Any], Received | Callable[[GMOTLoss], Received] | None]] = {
    "preset": ({"preset": "uot"}, {"alpha": 0.0, "method": "mirror", "rho_acoustic": 0.1}),
    "tap": ({"tap": ["encoder.0", "encoder"], **LAYERS}, {}),
    "pool": ({"pool": 2}, in_pairs),
    "frame_weights": ({"frame_weights": "blank"}, {"acoustic_weights": WEIGHTS}),
    "feature_edges": ({"feature_edges": 0.3}, edges(0.3, 0.0)),
    "temporal_edges": ({"temporal_edges": 0.5}, edges(1.0, 0.5)),
    "temporal_radius_acoustic": (RADII, edges(1.0, 0.5, 4, 2)),
    "temporal_radius_linguistic": (RADII, edges(1.0, 0.5, 4, 2)),
    "coupling": ({"coupling": "attention"}, None),
    "alpha": ({"alpha": 0.3}, {"alpha": 0.3}),
    "method": ({"method": "mirror"}, {"method": "mirror"}),
    "epsilon": ({"epsilon": 0.07}, {"epsilon": 0.07}),
    "epsilon_relative": ({"epsilon_relative": False}, {"epsilon_relative": False}),
    "rho_acoustic": ({"rho_acoustic": 0.4}, {"rho_acoustic": 0.4}),
    "rho_linguistic": ({"rho_linguistic": 0.6}, {"rho_linguistic": 0.6}),
    "prior": ({"prior": "band"}, {"prior": prior(lambda x, *_: 10.0 * max(abs(x) - 0.1, 0.0), 0.5)}),
    "order_lambda1": (ORDER, {"prior": prior(order)}),
    "order_lambda2": (ORDER, {"prior": prior(order)}),
    "order_delta": (ORDER, {"prior": prior(order)}),
    "band_width": (BAND, {"prior": prior(band, 0.5)}),
    "band_weight": (BAND, {"prior": prior(band, 0.5)}),
    "outer_iterations": ({"outer_iterations": 3}, {"outer_iterations": 3}),
    "inner_iterations": ({"inner_iterations": 11}, {"inner_iterations": 11}),
    "tolerance": ({"tolerance": 0.02}, {"tolerance": 0.02}),
    "annealing": ({"annealing": 5.0}, {"annealing": 5.0}),
    "plan_gradient": (MIRROR, MIRROR),
    "backend": ({"backend": "pot"}, {"backend": "pot"}),
    "w_ot": ({"w_ot": 0.3}, {}),
    "w_align": ({"w_align": 0.3}, {}),
    "w_quantity": ({"coupling": "cif", "w_quantity": 0.3}, None),
    "schedule_unit": ({"schedule_unit": "epoch", "alpha_warmup": 4}, {"alpha": 0.125}),
    "warmup": ({"warmup": 4}, {}),
    "hold": ({"decay": 4, "hold": 2}, {}),
    "decay": ({"decay": 4}, {}),
    "alpha_warmup": ({"alpha_warmup": 5}, {"alpha": 0.1}),
    "epsilon_start": ({"epsilon_start": 0.8, "epsilon_decay": 2}, {"epsilon": 0.8}),
    "epsilon_decay": ({"epsilon_start": 0.8, "epsilon_decay": 4}, {"epsilon": 0.8}),
    "adapter": ({"adapter": "mlp"}, {}),
    "adapter_hidden": ({"adapter": "mlp", "adapter_hidden": 3}, {}),
    "residual": ({"residual": True}, {}),
    "teacher": ({"teacher": "folder"}, {}),
    "teacher_width": ({"teacher_width": 5}, {}),
    "teacher_layer": ({"teacher_layer": 7}, {}),
    "teacher_mix": ({"teacher_mix": True, **LAYERS}, {}),
    "teacher_stats": ({"teacher": "folder", "teacher_stats": "folder"}, {}),
    "special_tokens": ({"teacher": "folder", "special_tokens": True}, {}),
    "centre": ({"centre": False}, lambda module: nodes(*features_of(module, centre=False))),
}
#: What a step's loss is worth at the first step of these schedules.
SHARE = {"warmup": 0.25, "decay": 0.75}


def assert_received(call: Received, expected: Received) -> None:
    assert call.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(call[name], value, atol=1e-6, rtol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
        else:
            assert call[name] == value, name


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(GMOTConfig)])
def test_what_the_solver_receives(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A value of an option's own changes this and nothing else, and the loss is the weighted sum of its parts."""
    given, change = CASES[name]
    config = GMOTConfig.from_dict({"teacher_width": TEACHER, "backend": "torch", **given})
    assert name == "preset" or getattr(config, name) != getattr(GMOTConfig(), name)
    module, calls, loss, stats = train_a_step(monkeypatch, config)
    if name == "tap":
        return check_places(module, calls)
    parts = config.w_align * stats["loss_align"]
    if change is None:
        assert not calls
        parts = parts + config.w_quantity * stats["loss_quantity"]
    else:
        changes = change(module) if callable(change) else change
        (call,) = calls
        assert_received(call, usual(module) | changes)
        alpha = call["alpha"]
        parts = parts + config.w_ot * (alpha * stats["loss_gwd"] + (1 - alpha) * stats["loss_wd"])
    torch.testing.assert_close(loss, SHARE.get(name, 1.0) * parts)


@pytest.mark.parametrize("options", [{"prior": "order"}, {"prior": "band"}, {"prior": "order", "pool": 2}])
def test_priors_count_the_weights_of_the_nodes(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    """With frame weights a prior's diagonal is that of their mass, whatever is pooled."""
    config = GMOTConfig.from_dict({"teacher_width": TEACHER, "backend": "torch", "frame_weights": "blank", **options})
    _, (call,), _, _ = train_a_step(monkeypatch, config)
    weights, lengths = call["acoustic_weights"], call["acoustic_lengths"]
    for sample, (frames, tokens) in enumerate(zip(lengths.tolist(), TOKENS.tolist(), strict=True)):
        mass = weights[sample, :frames] / weights[sample, :frames].sum()
        ends = mass.cumsum(0)[:, None] - torch.arange(1, tokens + 1) / tokens
        middles = ends - mass[:, None] / 2 + 0.5 / tokens
        order = 50.0 * ends**2 / (1 + ends**2) + 0.1 * ends**2 / (frames**-2 + tokens**-2) / 2
        band = 10.0 * (middles.abs() - 0.1).clamp(min=0)
        expected = order if options["prior"] == "order" else band
        torch.testing.assert_close(call["prior"][sample, :frames, :tokens], expected)


def check_places(module: LayeredLoss, calls: list[Received]) -> None:
    """Two places, two layers: each is a transfer of its own."""
    features, teacher = batch(2 * TEACHER)
    centred = within(teacher, TOKENS) - torch.cat([teacher[0], teacher[1, :2]]).mean(0)
    pairs = zip(module.losses, (features, 2 * features + 1), centred.chunk(2, -1), strict=True)
    for call, (loss, acoustic, layer) in zip(calls, pairs, strict=True):
        expected = nodes(loss.adapter(within(acoustic, LENGTHS)), layer)
        assert_received({key: call[key] for key in expected}, expected)


def test_what_options_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that shape the module rather than the call."""

    def built(name: str) -> GMOTLoss:
        config = GMOTConfig.from_dict({"teacher_width": TEACHER, "backend": "torch", **CASES[name][0]})
        return train_a_step(monkeypatch, config)[0]

    assert [tuple(p.shape) for p in built("adapter_hidden").adapter.map.parameters()] == [(3, 6), (3,), (4, 3), (4,)]
    assert built("adapter").adapter.map[0].out_features == 512 and built("w_ot").adapter.map.weight.shape == (4, 6)
    assert built("residual").back.weight.shape == (6, 4) and built("w_ot").back is None
    assert built("teacher_mix").mix.weights.tolist() == [0.5, 0.5] and built("w_ot").mix is None
    assert built("teacher_width").adapter.norm.weight.shape == (5,)

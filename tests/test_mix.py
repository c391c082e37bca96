"""The learned mix of the teacher's layers: what it equals, and that its weights get the loss's own gradient."""

import pytest
import torch

from espnet_gmot.config import PRESETS, GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.graph import Graph
from espnet_gmot.loss import GMOTLoss, LayeredLoss, alignment
from espnet_gmot.mix import LayerMix

WIDTH, COLUMNS, LAYERS = 6, 5, 3
LENGTHS, TOKENS = torch.tensor([9, 5]), torch.tensor([4, 2])
MIXED = {"teacher_mix": True, "teacher_layer": [4, 8, 12], "teacher_width": LAYERS * COLUMNS, "backend": "torch"}
#: A plan that is as good as exact, so that a value has the slope that its gradient says.
EXACT = {"outer_iterations": 3000, "inner_iterations": 200, "tolerance": 1e-9}


def make(**options: object) -> GMOTLoss:
    torch.manual_seed(1)
    return GMOTLoss(GMOTConfig.from_dict({"backend": "torch", **options}), WIDTH)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.randn(2, 9, WIDTH), 1 + torch.randn(2, 4, LAYERS * COLUMNS)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in ("ctc", "hcsa")])
def test_all_weight_on_one_layer_is_that_layer(preset: str) -> None:
    features, teacher = batch()
    for chosen in range(LAYERS):
        mixed = make(preset=preset, **MIXED)
        single = make(preset=preset, teacher_width=COLUMNS)
        single.load_state_dict(mixed.state_dict() | {"teacher_mean": single.teacher_mean}, strict=False)
        with torch.no_grad():
            mixed.mix.logits[chosen] = 200.0
        layer = teacher.chunk(LAYERS, -1)[chosen]
        results = []
        for module, rows in ((mixed, teacher), (single, layer)):
            loss, _ = module.train()(features, LENGTHS, rows, TOKENS)
            loss.backward()
            results.append([loss, *(parameter.grad for parameter in module.adapter.parameters())])
        for ours, expected in zip(*results, strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-4)


def test_long_rows_count_no_more_than_short_ones() -> None:
    features, teacher = batch()
    scaled = teacher * torch.tensor([1.0, 100.0, 0.01]).repeat_interleave(COLUMNS)
    module = make(**MIXED).eval()
    one, other = (module(features, LENGTHS, rows, TOKENS)[0] for rows in (teacher, scaled))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {}, {"alpha": 1.0, "prior": "order"}])
def test_the_distance_has_the_slope_that_the_weights_gradient_says(options: dict) -> None:
    """Finite differences over plans solved anew, in double precision: the envelope theorem through the mix."""
    module = make(**MIXED, **EXACT, **options)
    features, teacher = (tensor.double() for tensor in batch())
    acoustic = Graph(features[..., :COLUMNS].clone(), LENGTHS)
    mix = LayerMix(LAYERS).double()
    with torch.no_grad():
        mix.logits.copy_(torch.tensor([0.3, -0.4, 0.1]))

    def distance() -> torch.Tensor:
        return module.transport(acoustic, Graph(mix(teacher), TOKENS)).value.sum()

    (slope,) = torch.autograd.grad(distance(), mix.logits)
    for index in range(LAYERS):
        values = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                mix.logits[index] += step
                values.append(distance())
                mix.logits[index] -= step
        torch.testing.assert_close((values[0] - values[1]) / 2e-4, slope[index], atol=1e-5, rtol=1e-3)
    assert slope.abs().max() > 1e-3


def test_the_alignment_has_the_slope_that_the_weights_gradient_says() -> None:
    features, teacher = (tensor.double() for tensor in batch())
    plan = torch.rand(2, 9, 4, dtype=torch.double)
    mix = LayerMix(LAYERS).double()

    def align(logits: torch.Tensor) -> torch.Tensor:
        rows = torch.func.functional_call(mix, {"logits": logits}, (teacher,))
        return alignment(features[..., :COLUMNS], rows, plan, TOKENS).mean()

    logits = torch.tensor([0.3, -0.4, 0.1], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(align, logits)


def test_the_loss_passes_on_both_gradients() -> None:
    """What reaches the weights in a training step is w_ot times the distance's plus w_align times the alignment's."""
    module = make(**MIXED, w_ot=2.0, w_align=0.5, centre=False)
    features, teacher = batch()
    module(features, LENGTHS, teacher, TOKENS)[0].backward()
    acoustic, linguistic = Graph(module.adapter(features), LENGTHS), Graph(module.mix(teacher), TOKENS)
    result = module.transport(acoustic, linguistic)
    parts = 2.0 * result.value.mean() + 0.5 * alignment(acoustic.nodes, linguistic.nodes, result.plan, TOKENS).mean()
    torch.testing.assert_close(module.mix.logits.grad, torch.autograd.grad(parts, module.mix.logits)[0])


@pytest.mark.parametrize(
    "options",
    [{}, {"w_align": 0.0}, {"w_ot": 0.0}, {"warmup": 10}, {"preset": "ot", "w_align": 0.0}]
    + [{"preset": "kd-att"}, {"preset": "kd-cif", "w_align": 0.0}, {"feature_edges": 0.0, "temporal_edges": 1.0}],
)
def test_the_weights_get_a_gradient_in_every_step(options: dict) -> None:
    module = make(**{**MIXED, **options}).train()
    features, teacher = batch()
    module(features, LENGTHS, teacher, TOKENS)[0].backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    pooled = options.get("w_align", 1.0) == 0 and options.get("preset") == "kd-cif"  # then nothing sees the teacher
    assert (module.mix.logits.grad.abs().max() > 0) != pooled


def test_training_finds_the_layer_that_the_speech_says() -> None:
    torch.manual_seed(3)
    told = torch.randn(8, 4, COLUMNS)
    features = told.repeat_interleave(3, 1) @ torch.randn(COLUMNS, WIDTH) + 0.1 * torch.randn(8, 12, WIDTH)
    noise = torch.randn(8, 4, COLUMNS), torch.randn(8, 4, COLUMNS)
    # without a prior the plan may arrange the tokens of another layer so that they fit as well
    module = make(preset="gmot-t", **MIXED).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(60):
        rows = torch.cat([noise[0], told, noise[1]], -1)
        loss, stats = module(features, torch.full((8,), 12), rows, torch.full((8,), 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert stats["mix_8"] > 0.6 and stats["mix_4"] + stats["mix_8"] + stats["mix_12"] == pytest.approx(1.0)


def test_every_place_has_a_mix_of_its_own() -> None:
    options = {**MIXED, "tap": ["encoder.0", "encoder"], "preset": "hcsa"}
    layered = LayeredLoss(GMOTConfig.from_dict(options), [WIDTH, WIDTH])
    features, teacher = batch()
    loss, _ = layered([(features, LENGTHS), (2 * features + 1, LENGTHS)], teacher, TOKENS)
    loss.backward()
    first, second = (each.mix.logits.grad for each in layered.losses)
    assert (first - second).abs().max() > 1e-4
    assert [each.adapter.map.out_features for each in layered.losses] == [COLUMNS, COLUMNS]


def test_features_of_other_layers_are_refused() -> None:
    features, teacher = batch()
    with pytest.raises(UserError, match="teacher_width is 15, but the teacher's features have 10 columns"):
        make(**MIXED)(features, LENGTHS, teacher[..., :10], TOKENS)

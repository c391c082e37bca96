"""The transfer loss: invariances, parts, schedule and statistics."""

import pytest
import torch

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.graph import Graph
from espnet_gmot.loss import GMOTLoss, alignment

WIDTH, TEACHER = 6, 5
LENGTHS, TOKENS = torch.tensor([9, 4]), torch.tensor([3, 2])


def make(**options: object) -> GMOTLoss:
    torch.manual_seed(1)
    return GMOTLoss(GMOTConfig.from_dict({"teacher_width": TEACHER, "backend": "torch", **options}), WIDTH)


def batch(pad: int = 0, fill: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    features, teacher = torch.randn(2, 9, WIDTH), torch.randn(2, 3, TEACHER)
    features[1, 4:], teacher[1, 2:] = fill, fill
    more = torch.nn.functional.pad
    return more(features, (0, 0, 0, pad), value=fill), more(teacher, (0, 0, 0, pad), value=fill)


@pytest.mark.parametrize("preset", ["ot", "tot", "uot", "gmot", "gmot-t", "gmot-u", "kd-att", "kd-cif"])
def test_padding_changes_neither_value_nor_gradient(preset: str) -> None:
    losses, gradients = [], []
    for pad, fill in ((0, 0.0), (5, 7.0), (5, torch.nan)):
        loss_module = make(preset=preset).train()
        features, teacher = batch(pad, fill)
        features.requires_grad_()
        loss, _ = loss_module(features, LENGTHS, teacher, TOKENS)
        loss.backward()
        losses.append(loss.item())
        gradients.append(features.grad[:, :9])
        assert features.grad[1, 4:].abs().max() == 0
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-6)
    for other in gradients[1:]:
        torch.testing.assert_close(gradients[0], other, atol=1e-6, rtol=1e-4)


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    features, teacher = batch()
    loss, stats = make(w_ot=2.0, w_align=0.5, alpha=0.3)(features, LENGTHS, teacher, TOKENS)
    distance = 0.3 * stats["loss_gwd"] + 0.7 * stats["loss_wd"]
    torch.testing.assert_close(loss, 2.0 * distance + 0.5 * stats["loss_align"])
    assert set(stats) == {"loss_gmot", "loss_wd", "loss_gwd", "loss_align", "marginal_error", "iterations", "converged"}
    assert not any(value.requires_grad for value in stats.values())


@pytest.mark.parametrize("plan_gradient", ["implicit", "detached"])
def test_the_alignment_moves_the_plan_only_where_asked(plan_gradient: str) -> None:
    """Against the slope of the whole loss, plan solved anew: the implicit gradient has all of it."""
    solved = {"tolerance": 1e-7, "outer_iterations": 300, "inner_iterations": 300, "method": "mirror", "epsilon": 0.3}
    module = make(w_ot=0.0, plan_gradient=plan_gradient, centre=False, **solved).eval()
    features, teacher = batch()
    direction = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))

    def loss(step: float) -> torch.Tensor:
        return module(features + step * direction, LENGTHS, teacher, TOKENS)[0]

    features.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(0.0), features)
    slope = ((loss(1e-2) - loss(-1e-2)) / 2e-2).item()
    ours = (gradient * direction).sum().item()
    assert (abs(ours - slope) < 0.01 * abs(slope)) == (plan_gradient == "implicit"), (ours, slope)


@pytest.mark.parametrize("preset", ["ot", "tot", "uot", "gmot", "gmot-t", "gmot-u", "kd-att", "kd-cif"])
def test_an_utterance_without_tokens_counts_as_a_loss_of_zero(preset: str) -> None:
    module = make(preset=preset, centre=False).eval()
    features, teacher = batch()
    features.requires_grad_()
    both, _ = module(
        features, LENGTHS, teacher * torch.tensor([1.0, 0.0])[:, None, None], TOKENS * torch.tensor([1, 0])
    )
    alone, _ = module(features[:1], LENGTHS[:1], teacher[:1], TOKENS[:1])
    torch.testing.assert_close(both, alone / 2)
    both.backward()
    assert features.grad[0].any() and not features.grad[1].any()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())


@pytest.mark.parametrize(("alpha", "epsilon"), [(0.0, 1e-4), (1.0, 1e-4), (1.0, 100.0), (1e-6, 0.1), (0.5, 1e-3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_options_and_magnitudes_give_finite_losses_and_gradients(
    dtype: torch.dtype, alpha: float, epsilon: float
) -> None:
    """Also at the largest numbers that half precision holds, as an encoder under autocast gives them."""
    for size in (1e-6, 1.0, 6e4 / 5):
        module = make(alpha=alpha, epsilon=epsilon).train()
        features, teacher = batch()
        features = (size * features).to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, stats = module(features, LENGTHS, size * teacher, TOKENS)
        loss.backward()
        assert loss.dtype == torch.float32 and all(torch.isfinite(value) for value in [loss, *stats.values()])
        assert torch.isfinite(features.grad).all() and features.grad.dtype == dtype
        assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())


def test_a_batch_that_is_not_finite_leaves_no_trace_in_the_mean() -> None:
    module = make(centre=True).train()
    features, teacher = batch()
    module(features, LENGTHS, teacher, TOKENS)
    mean = module.teacher_mean.clone()
    loss, _ = module(features, LENGTHS, teacher * torch.nan, TOKENS)
    assert not torch.isfinite(loss) and torch.equal(module.teacher_mean, mean) and module.teacher_rows == TOKENS.sum()


def test_a_batch_is_the_mean_of_its_samples() -> None:
    module = make(centre=False).eval()
    features, teacher = batch()
    both, _ = module(features, LENGTHS, teacher, TOKENS)
    each = [module(features[i : i + 1], LENGTHS[i : i + 1], teacher[i : i + 1], TOKENS[i : i + 1])[0] for i in (0, 1)]
    assert both.item() == pytest.approx(torch.stack(each).mean().item(), abs=1e-5)


def test_gradient_descent_lowers_the_loss_and_aligns() -> None:
    module = make().train()
    features, teacher = batch()
    features.requires_grad_()
    optimizer = torch.optim.Adam([features, *module.parameters()], lr=0.05)
    values = []
    for _ in range(40):
        loss, stats = module(features, LENGTHS, teacher, TOKENS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append((loss.item(), stats["loss_align"].item()))
    assert values[-1][0] < 0.5 * values[0][0] and values[-1][1] < 0.2


def test_every_parameter_gets_a_gradient_in_every_step() -> None:
    for options in ({}, {"w_align": 0.0}, {"w_ot": 0.0}, {"warmup": 10}, {"adapter": "mlp"}):
        module = make(**options).train()
        features, teacher = batch()
        module(features, LENGTHS, teacher, TOKENS)[0].backward()
        assert all(parameter.grad is not None for parameter in module.parameters()), options


def test_warmup_rises_in_training_only_and_is_resumed() -> None:
    module = make(warmup=4).train()
    features, teacher = batch()
    shares = []
    for _ in range(5):
        loss, stats = module(features, LENGTHS, teacher, TOKENS)
        whole = module.config.alpha * stats["loss_gwd"] + (1 - module.config.alpha) * stats["loss_wd"]
        shares.append((loss / (whole + stats["loss_align"])).item())
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], abs=1e-5)
    resumed = make(warmup=4)
    resumed.load_state_dict(module.state_dict())
    assert resumed.eval()._now().weight == 1.0 and resumed.time == 5


def test_the_teachers_mean_is_that_of_all_rows_seen() -> None:
    module = make().train()
    rows = []
    for seed in range(3):
        torch.manual_seed(seed)
        features, teacher = torch.randn(2, 9, WIDTH), 3 + torch.randn(2, 3, TEACHER)
        module(features, LENGTHS, teacher, TOKENS)
        rows += [teacher[0], teacher[1, :2]]
    torch.testing.assert_close(module.teacher_mean, torch.cat(rows).mean(0))
    seen = module.teacher_mean.clone()
    module.eval()(features, LENGTHS, teacher + 5, TOKENS)
    assert torch.equal(module.teacher_mean, seen)


def test_the_running_mean_undoes_any_shift_of_the_archive() -> None:
    # so features that dump-teacher has centred train as raw ones do, unless `centre` is false
    losses = {}
    for shift in (0.0, 3.0):
        modules = {centre: make(centre=centre).train() for centre in (True, False)}
        for seed in range(3):
            torch.manual_seed(seed)
            features, teacher = torch.randn(2, 9, WIDTH), torch.randn(2, 3, TEACHER) + shift
            for centre, module in modules.items():
                losses[shift, centre] = module(features, LENGTHS, teacher, TOKENS)[0].item()
    assert losses[0.0, True] == pytest.approx(losses[3.0, True], abs=1e-4)
    assert losses[0.0, False] != pytest.approx(losses[3.0, False], abs=1e-2)


def test_half_precision_under_autocast_equals_float32() -> None:
    module = make(centre=False).eval()
    features, teacher = batch()
    exact, _ = module(features, LENGTHS, teacher, TOKENS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = module(features.bfloat16(), LENGTHS, teacher, TOKENS)
    assert half.dtype == torch.float32 and half.item() == pytest.approx(exact.item(), rel=0.02)


def test_a_double_model_works_in_double_precision_and_a_half_one_is_refused() -> None:
    features, teacher = batch()
    single, _ = make(temporal_edges=0.5)(features, LENGTHS, teacher, TOKENS)
    loss, _ = make(temporal_edges=0.5).double()(features.double(), LENGTHS, teacher.double(), TOKENS)
    assert loss.dtype == torch.float64 and loss.item() == pytest.approx(single.item(), rel=1e-3)
    with pytest.raises(UserError, match=r"doesn't train in torch.float16: set train_dtype: float32, use_amp: true"):
        make().half()(features.half(), LENGTHS, teacher.half(), TOKENS)


def test_a_teacher_of_another_width_is_refused() -> None:
    features, teacher = batch()
    with pytest.raises(UserError, match=r"teacher_width is 5, but .* 6 columns: set teacher_width: 6"):
        make()(features, LENGTHS, torch.nn.functional.pad(teacher, (0, 1)), TOKENS)


@pytest.mark.parametrize("preset", ["ot", "tot", "uot", "gmot", "gmot-t", "gmot-u", "kd-att", "kd-cif"])
def test_an_utterance_without_frames_counts_as_a_loss_of_zero(preset: str) -> None:
    module = make(preset=preset, centre=False).eval()
    features, teacher = batch()
    both, _ = module(features.requires_grad_(), LENGTHS * torch.tensor([1, 0]), teacher, TOKENS)
    alone, _ = module(features[:1], LENGTHS[:1], teacher[:1], TOKENS[:1])
    torch.testing.assert_close(both, alone / 2)
    both.backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters() if parameter.grad is not None)
    assert features.grad.isfinite().all() and features.grad[1].abs().max() == 0


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_frames_without_weight_take_no_part_nor_do_utterances_of_them(pool: int, dtype: torch.dtype) -> None:
    module = make(pool=pool, centre=False).eval()
    features, teacher = batch()
    weights = torch.rand(2, 9, dtype=torch.float32).to(dtype) + 0.5
    weights[0, 2:6], weights[1] = 0, 0  # a group, and all of the second utterance
    alone, _ = module(features[:1], LENGTHS[:1], teacher[:1], TOKENS[:1], weights[:1])
    both, _ = module(features.requires_grad_(), LENGTHS, teacher, TOKENS, weights)
    torch.testing.assert_close(both, alone / 2)
    assert module.values.isfinite().all() and module.values[1] == 0 < module.values[0]
    both.backward()
    assert features.grad.isfinite().all() and features.grad[0, :2].abs().max() > 0 == features.grad[1].abs().max()


@pytest.mark.parametrize("preset", ["gmot", "kd-att"])
def test_values_tell_which_utterance_is_not_finite(preset: str) -> None:
    features, teacher = batch()
    teacher[1, 0, 0] = torch.nan
    module = make(preset=preset, centre=False).eval()
    module(features, LENGTHS, teacher, TOKENS)
    assert module.values.isfinite().tolist() == [True, False]


def test_where_both_marginals_are_relaxed_the_mass_is_told() -> None:
    features, teacher = batch()
    _, stats = make(rho_acoustic=0.1, rho_linguistic=0.1)(features, LENGTHS, teacher, TOKENS)
    assert 0.05 < stats["mass"] < 0.9
    assert "mass" not in make(rho_acoustic=0.1)(features, LENGTHS, teacher, TOKENS)[1]


def test_alignment_is_zero_for_a_plan_that_matches_equal_vectors() -> None:
    nodes = torch.randn(1, 4, 3)
    plan = torch.eye(4)[None] / 4
    assert alignment(nodes, 2 * nodes, plan, torch.tensor([4])).item() == pytest.approx(0, abs=1e-6)
    assert alignment(nodes, -nodes, plan, torch.tensor([4])).item() == pytest.approx(2, abs=1e-6)


def test_a_token_without_mass_has_no_gradient() -> None:
    teacher, plan = torch.randn(1, 2, 3), torch.full((1, 4, 2), 0.25)
    plan[:, :, 1] = 0
    nodes = torch.randn(1, 4, 3, requires_grad=True)
    both, alone = (
        torch.autograd.grad(alignment(nodes, teacher, plan, torch.tensor([tokens])), nodes)[0] for tokens in (2, 1)
    )
    torch.testing.assert_close(2 * both, alone)  # a mean over two tokens, over one


def test_pooling_averages_valid_neighbours_only() -> None:
    nodes = torch.arange(5.0).view(1, 5, 1)
    nodes[0, 3:] = 99.0
    graph = Graph(nodes, torch.tensor([3])).pooled(2)
    assert graph.lengths.tolist() == [2] and graph.nodes[0, :2, 0].tolist() == [0.5, 2.0]
    weighted = Graph(nodes, torch.tensor([3]), torch.tensor([[3.0, 1.0, 1.0, 9.0, 9.0]])).pooled(2)
    assert weighted.nodes[0, :2, 0].tolist() == [0.25, 2.0] and weighted.weights[0, :2].tolist() == [4.0, 1.0]


def test_the_defaults_converge_before_they_run_out_of_steps() -> None:
    module = make(backend="auto").train()
    torch.manual_seed(6)
    tokens = torch.randn(8, 12, TEACHER)
    teacher_lengths, lengths = torch.randint(6, 13, (8,)), torch.randint(40, 73, (8,))
    for signal in (0.0, 0.7):  # before and after training
        features = signal * tokens.repeat_interleave(6, 1) @ torch.randn(TEACHER, WIDTH) + torch.randn(8, 72, WIDTH)
        _, stats = module(features, lengths, tokens, teacher_lengths)
        assert stats["converged"] == 1 and stats["iterations"] < module.config.outer_iterations

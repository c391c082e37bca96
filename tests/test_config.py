"""Options: presets, overrides, and errors that name option, value and fix."""

import dataclasses
import math
import subprocess
import sys

import pytest

from espnet_gmot.config import PRESETS, GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.fields import checked
from espnet_gmot.transport.options import CHOICES, Options


def test_single_keys_override_the_preset() -> None:
    config = GMOTConfig.from_dict({"preset": "uot", "alpha": 0.25, "teacher_width": 8})
    assert (config.rho_acoustic, config.alpha) == (0.1, 0.25)
    assert GMOTConfig.from_dict({"preset": "ot"}).alpha == 0.0
    assert GMOTConfig.from_dict(None) == GMOTConfig()


def test_no_number_may_be_negative_and_those_that_divide_or_count_not_zero() -> None:
    """Steps, sizes, scales and deviations start at what makes sense; weights, shares and times at zero."""
    positive = {"pool", "epsilon", "order_delta", "outer_iterations", "inner_iterations", "annealing", "adapter_hidden"}
    ranges = {each.name: each.metadata["range"] for each in dataclasses.fields(GMOTConfig) if each.metadata["range"]}
    assert len(ranges) > 25 and positive <= ranges.keys()
    for name, (low, _) in ranges.items():
        if name.startswith("temporal_radius") or name == "teacher_width":
            assert low == 1
        else:
            assert low >= 0 and (low > 0) == (name in positive), name


@pytest.mark.parametrize("preset", PRESETS)
def test_resolved_options_resolve_to_themselves(preset: str) -> None:
    config = GMOTConfig.from_dict({"preset": preset})
    assert GMOTConfig.from_dict(config.to_dict()) == config
    assert config.transfers == (preset != "ctc")


def test_numbers_may_be_text_as_yaml_1_1_reads_them() -> None:
    config = GMOTConfig.from_dict({"epsilon": "1e-3", "rho_acoustic": "inf", "pool": "2"})
    assert (config.epsilon, config.rho_acoustic, config.pool) == (1e-3, math.inf, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alhpa": 0.5}, ["unknown option 'alhpa'", "did you mean 'alpha'"]),
        ({"alpha": 1.5}, ["alpha: got 1.5", "[0, 1]"]),
        ({"alpha": "half"}, ["alpha: got 'half'", "[0, 1]"]),
        ({"alpha": True}, ["alpha: got True"]),
        ({"alpha": math.nan}, ["alpha: got nan"]),
        ({"epsilon": 0}, ["epsilon: got 0"]),
        ({"preset": "gmto"}, ["preset: unknown value 'gmto'", "did you mean 'gmot'"]),
        ({"adapter": "conv"}, ["adapter: unknown value 'conv'", "linear, mlp"]),
        ({"pool": 1.5}, ["pool: got 1.5", "whole number"]),
        ({"warmup": math.inf}, ["warmup: got inf"]),
        ({"centre": "yes"}, ["centre: got 'yes'", "true or false"]),
        ({"tap": ["encoder"]}, ["tap: ['encoder'] and teacher_layer: -1 are no pairs"]),
        ({"tap": ["encoder.0", "encoder"], "teacher_layer": [1]}, ["are no pairs", "as many"]),
        ({"teacher_layer": [1, 2]}, ["teacher_layer: [1, 2] are no pairs"]),
        ({"teacher_mix": True}, ["teacher_mix: true mixes several layers, but teacher_layer is -1", "[4, 8, 12]"]),
        ({"teacher_mix": True, "teacher_layer": [3]}, ["teacher_layer is [3]"]),
        ({"teacher_mix": "yes"}, ["teacher_mix: got 'yes'"]),
        ({"teacher_mix": True, "teacher_layer": [1, 2], "teacher_width": 7}, ["7 is not that of 2 layers", "[1, 2]"]),
        ({"preset": "hcsa", "teacher_width": 7}, ["7 is not that of 3 layers side by side"]),
        ({"teacher_layer": "last"}, ["teacher_layer: got 'last'"]),
        ({"residual": True, "adapter": "mlp"}, ["residual: true needs adapter: linear"]),
        ({"teacher": 5}, ["teacher: got 5"]),
        ({"w_ot": math.inf}, ["w_ot: got inf"]),
        ({"plan_gradient": "implicit"}, ["plan_gradient: implicit needs", "method: mirror"]),
        ({"plan_gradient": "implicit", "method": "mirror", "backend": "pot"}, ["a backend other than pot"]),
        ({"tap": 3}, ["tap: got 3", "text"]),
        ({"tap": []}, ["tap: got []", "text or a list of them"]),
        ({"tap": ["encoder", 1]}, ["tap: got ['encoder', 1]"]),
        ({"teacher_layer": [1, True]}, ["teacher_layer: got [1, True]", "a whole number or a list of them"]),
        ({"teacher_width": None, "alpha": None}, ["alpha: got None"]),
        (
            {"temporal_edges": 1, "temporal_radius_acoustic": 9},
            ["temporal_radius_acoustic and temporal_radius_linguistic go together"],
        ),
        ({"temporal_edges": 1, "temporal_radius_acoustic": 0}, ["temporal_radius_acoustic: got 0", "[1, 1e+06]"]),
        ({"frame_weights": "blank", "tap": "frontend"}, ["frame_weights: blank", "tap: frontend"]),
        ({"feature_edges": 0}, ["feature_edges and temporal_edges are both 0"]),
        ({"alpha": 1, "feature_edges": 0, "temporal_edges": 1, "w_align": 0}, ["alpha: 1", "nothing would learn"]),
    ],
)
def test_bad_options_name_option_value_and_fix(options: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        GMOTConfig.from_dict(options)
    message = str(error.value)
    assert message.startswith("gmot_conf: ") and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("field", dataclasses.fields(GMOTConfig), ids=lambda field: field.name)
def test_every_option_says_what_it_is(field: dataclasses.Field) -> None:
    known = field.metadata
    assert len(known["meaning"]) > 10 and set(known) == {"meaning", "range", "choices", "unit", "read_only_if"}
    if known["read_only_if"] is not None:
        other = GMOTConfig.__dataclass_fields__[known["read_only_if"].option]
        assert set(known["read_only_if"].values) <= set(other.metadata["choices"] or ())
    if field.type in (int, float, int | None):
        low, high = known["range"]
        assert low < high
        for value in (low, high):
            assert checked(field, value) == value
        for value in (low - 1, high * 1.01 + 1 if math.isfinite(high) else math.nan):
            with pytest.raises(UserError, match=f"gmot_conf: {field.name}: got .*, expected a .*number in "):
                checked(field, value)


#: Each would be ignored, and the option that makes it count.
IGNORED = [
    ({"special_tokens": True}, "special_tokens: true", "where teacher is set"),
    ({"teacher_stats": "folder"}, "teacher_stats: folder", "where teacher is set"),
    ({"hold": 5}, "hold: 5", "where decay is set"),
    ({"epsilon_start": 1.0}, "epsilon_start: 1.0", "where epsilon_decay is set"),
    ({"epsilon_decay": 9}, "epsilon_decay: 9", "where epsilon_start is set"),
    ({"order_lambda1": 2}, "order_lambda1: 2.0", "with prior: order"),
    ({"order_lambda2": 2, "prior": "band"}, "order_lambda2: 2.0", "with prior: order"),
    ({"order_delta": 2}, "order_delta: 2.0", "with prior: order"),
    ({"band_width": 0.2, "preset": "tot"}, "band_width: 0.2", "with prior: band"),
    ({"band_weight": 1}, "band_weight: 1.0", "with prior: band"),
    ({"adapter_hidden": 64}, "adapter_hidden: 64", "with adapter: mlp"),
    ({"temporal_radius_acoustic": 9, "temporal_radius_linguistic": 3}, "temporal_radius_acoustic: 9", "temporal_edges"),
    ({"w_quantity": 2}, "w_quantity: 2.0", "with coupling: cif"),
    ({"preset": "kd-att", "w_quantity": 2}, "w_quantity: 2.0", "with coupling: cif"),
    ({"preset": "kd-att", "frame_weights": "blank"}, "frame_weights: blank", "coupling: transport"),
    ({"preset": "kd-cif", "frame_weights": "blank"}, "frame_weights: blank", "coupling: transport"),
    ({"preset": "kd-att", "prior": "order"}, "prior: order", "with coupling: transport"),
    *(
        ({"preset": preset, name: value}, f"{name}: {value}", "with coupling: transport")
        for preset in ("kd-att", "kd-cif")
        for name, value in {
            "alpha": 0.3,
            "method": "mirror",
            "epsilon": 0.2,
            "epsilon_relative": False,
            "rho_acoustic": 0.1,
            "rho_linguistic": 0.1,
            "outer_iterations": 7,
            "inner_iterations": 7,
            "tolerance": 0.01,
            "annealing": 2.0,
            "feature_edges": 2.0,
            "temporal_edges": 2.0,
            "alpha_warmup": 3,
            "w_ot": 2.0,
        }.items()
    ),
]


@pytest.mark.parametrize(("options", "ignored", "when"), IGNORED)
def test_options_that_would_be_ignored_are_refused(options: dict, ignored: str, when: str) -> None:
    with pytest.raises(UserError) as error:
        GMOTConfig.from_dict(options)
    message = str(error.value).lower()
    assert message.startswith(f"gmot_conf: {ignored} would be ignored".lower()) and when in message


def test_every_conditional_option_is_among_the_refused() -> None:
    conditional = {field.name for field in dataclasses.fields(GMOTConfig) if field.metadata["read_only_if"]}
    named = {ignored.partition(":")[0] for _, ignored, _ in IGNORED}
    # one radius alone is refused as such, plan_gradient and frame_weights by their own rules
    assert named == (conditional | {"frame_weights"}) - {"temporal_radius_linguistic", "plan_gradient"}


@pytest.mark.parametrize("preset", PRESETS)
def test_an_option_at_its_default_is_never_refused(preset: str) -> None:
    """As `config.yaml` holds them all, resolved, whichever of them count."""
    resolved = GMOTConfig.from_dict({"preset": preset}).to_dict()
    assert GMOTConfig.from_dict(resolved).to_dict() == resolved
    for name in resolved:
        usual = PRESETS[preset].get(name, getattr(GMOTConfig(), name)) if name != "preset" else preset
        assert GMOTConfig.from_dict({"preset": preset, name: usual}).to_dict() == resolved
    assert GMOTConfig.from_dict(resolved | {"warmup": 7}).warmup == 7  # --model_conf gmot_conf.warmup=7 on it
    assert GMOTConfig.from_dict({"preset": preset, "backend": "torch"}).backend == "torch"


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"w_ot": 0, "w_align": 0}, "raise w_ot or w_align, or set preset: ctc"),
        ({"preset": "kd-att", "w_align": 0}, "raise w_align, or set preset: ctc"),
        ({"preset": "kd-att", "w_align": 0, "w_ot": 1.0}, "raise w_align, or"),
        ({"preset": "kd-cif", "w_align": 0, "w_quantity": 0}, "raise w_align or w_quantity, or"),
    ],
)
def test_weights_that_leave_no_loss_are_refused(options: dict, advice: str) -> None:
    with pytest.raises(UserError, match=f"preset: .* learns nothing with these weights: {advice}"):
        GMOTConfig.from_dict(options)


def test_weights_that_leave_some_loss_are_not() -> None:
    for options in ({"w_ot": 0}, {"w_align": 0}, {"preset": "kd-cif", "w_align": 0}, {"preset": "ctc"}):
        assert GMOTConfig.from_dict(options).transfers == (options != {"preset": "ctc"})
    assert GMOTConfig.from_dict({"preset": "ctc", "w_align": 0.1}).transfers


def test_an_old_name_is_read_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="'stack' is now called 'pool'"):
        assert GMOTConfig.from_dict({"stack": "3"}).pool == 3
    with pytest.warns(FutureWarning), pytest.raises(UserError, match="pool: got 65"):
        GMOTConfig.from_dict({"stack": 65})
    # an old config.yaml holds stack: 1, and --model_conf gmot_conf.pool=4 comes beside it
    assert GMOTConfig.from_dict({"stack": 1, "pool": 4}).pool == 4
    assert GMOTConfig.from_dict({"stack": 4, "pool": 4}).pool == 4
    with pytest.raises(UserError, match="stack: 2 and pool: 4 contradict each other"):
        GMOTConfig.from_dict({"stack": 2, "pool": 4})


def test_the_solvers_options_are_all_here() -> None:
    """Under the same names and with the same words to choose from."""
    ours = {field.name: field for field in dataclasses.fields(GMOTConfig)}
    for field in dataclasses.fields(Options):
        assert str(field.type) == ours[field.name].type.__name__
        assert ours[field.name].metadata["choices"] == CHOICES.get(field.name)


def test_the_loss_needs_neither_espnet_nor_transformers() -> None:
    code = (
        "import sys, espnet_gmot.loss; print([m for m in ('espnet2', 'transformers', 'kaldiio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

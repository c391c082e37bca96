"""Options: presets, overrides, and errors that name option, value and fix."""

import inspect
import math
import re
import subprocess
import sys

import pytest

from espnet_gmot.config import PRESETS, GMOTConfig
from espnet_gmot.errors import UserError


def test_single_keys_override_the_preset() -> None:
    config = GMOTConfig.from_dict({"preset": "uot", "alpha": 0.25, "teacher_width": 8})
    assert (config.rho_acoustic, config.alpha) == (0.1, 0.25)
    assert GMOTConfig.from_dict({"preset": "ot"}).alpha == 0.0
    assert GMOTConfig.from_dict(None) == GMOTConfig()


@pytest.mark.parametrize("preset", PRESETS)
def test_resolved_options_resolve_to_themselves(preset: str) -> None:
    config = GMOTConfig.from_dict({"preset": preset})
    assert GMOTConfig.from_dict(config.to_dict()) == config
    assert config.transfers == (preset != "ctc")


def test_numbers_may_be_text_as_yaml_1_1_reads_them() -> None:
    config = GMOTConfig.from_dict({"epsilon": "1e-3", "rho_acoustic": "inf", "stack": "2"})
    assert (config.epsilon, config.rho_acoustic, config.stack) == (1e-3, math.inf, 2)


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
        ({"stack": 1.5}, ["stack: got 1.5", "whole number"]),
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


def test_every_option_is_documented() -> None:
    entries = re.findall(r"^    ([a-z_0-9, ]+):", inspect.getdoc(GMOTConfig).split("Attributes:")[1], re.MULTILINE)
    documented = [name.strip() for entry in entries for name in entry.split(",")]
    assert sorted(documented) == sorted(GMOTConfig().to_dict())


def test_the_loss_needs_neither_espnet_nor_transformers() -> None:
    code = (
        "import sys, espnet_gmot.loss; print([m for m in ('espnet2', 'transformers', 'kaldiio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

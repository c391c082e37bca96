"""The configuration that adopt writes: the user's text with some lines more."""

from pathlib import Path

import pytest
import yaml

from espnet_gmot.adopt.configuration import adopted
from espnet_gmot.errors import UserError
from tests.recipe.test_scripts import CONF

GMOT = {"preset": "gmot", "teacher_width": 8}
STREAM = ["dump/raw/train 1/teacher.scp", "teacher", "kaldi_ark"]
MORE = {"allow_variable_data_keys": True, "train_data_path_and_name_and_type": [STREAM]}
LAYOUTS = {
    "block": "# mine\nencoder: conformer  # best\nmodel_conf:   # weights\n    ctc_weight: 0.3  # a third\n\nseed: 1\n",
    "flow": "model_conf: {ctc_weight: 0.3} # short\n",
    "empty flow": "model_conf: {}\nseed: 1\n",
    "nothing": "seed: 1\nmodel_conf:\n",
    "nothing, in the middle": "model_conf: # none\nseed: 1",
    "null": "model_conf: null\nseed: 1\n",
    "tilde": "model_conf: ~\nseed: 1\n",
    "absent": "seed: 1",
    "two columns": "model_conf:\n  ctc_weight: 0.3\n  lsm_weight: 0.1\n",
    "named": "model: espnet # stock\nmodel_conf:\n    ctc_weight: 0.3\n",
    "quoted": "model: 'espnet'\n\"model_conf\":\n    ctc_weight: 0.3\n",
    "streams": "allow_variable_data_keys: false\ntrain_data_path_and_name_and_type:\n- [a, b, text]\n",
    "streams in flow": "train_data_path_and_name_and_type: [[a, b, text]]\nseed: 1\n",
    "streams indented": "train_data_path_and_name_and_type:\n    -   - a\n        - b\n        - text\n",
    "carriage returns": "# mine\r\nmodel_conf:\r\n    ctc_weight: 0.3\r\nseed: 1\r\n",
    "Chinese": "# 中文\nmodel_conf:\n    ctc_weight: 0.3 # 权重\n",
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_every_line_stays_and_the_keys_are_there(text: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_bytes(text.encode())
    new = adopted(path, GMOT, MORE)
    old, content = yaml.safe_load(text), yaml.safe_load(new)
    assert content.pop("model") == "gmot" and content["model_conf"].pop("gmot_conf") == GMOT
    assert content.pop("allow_variable_data_keys") is True
    assert content.pop("train_data_path_and_name_and_type")[0] == STREAM
    rest = {key: value for key, value in old.items() if key in ("encoder", "seed")}
    assert {key: content.get(key) for key in rest} == rest and (content["model_conf"] or None) == (
        old.get("model_conf") or None
    )
    assert all(note in new for note in (line[line.index("#") :] for line in text.splitlines() if "#" in line))
    assert ("\r\n" in text) is ("\r\n" in new) and ("\r" not in text or new.count("\n") == new.count("\r\n"))
    assert path.read_bytes().decode() == text


def test_every_configuration_of_ours_that_is_stock_can_be_adopted() -> None:
    stock = [path for path in sorted(CONF.glob("*.yaml")) if "model: gmot" not in path.read_text()]
    done = [path for path in stock if "train" in path.name or "ctc" in path.name]
    assert len(done) >= 3
    for path in done:
        lines = adopted(path, GMOT, MORE).splitlines()
        assert [line for line in path.read_text().splitlines() if line not in lines] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: gmot\n", "model: gmot: it is adopted already"),
        ("model: pit_espnet\n", "model: pit_espnet: GM-OT's host is model: espnet"),
        ("model_conf:\n    gmot_conf: {}\n", "has a gmot_conf already"),
        ("init_param: [a.pth]\n", r"init_param: \['a.pth'\]: starts from another model already: leave --init out"),
        ("{seed: 1}\n", "no block of `key: value` lines"),
        ("- 1\n", "no block of `key: value` lines"),
        ("a: [\n", "no YAML"),
    ],
)
def test_what_cannot_be_adopted(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        adopted(path, GMOT, {"init_param": ["x.pth"]})
    with pytest.raises(UserError, match="No such file"):
        adopted(tmp_path / "none.yaml", GMOT, {})

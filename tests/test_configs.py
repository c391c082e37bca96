"""Every shipped configuration trains a step; a baseline and its GM-OT twin differ in the transfer alone."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from espnet_gmot.config import PRESETS

CONF = Path(__file__).resolve().parents[1] / "conf"
TRAIN = sorted(path.name for path in CONF.glob("*.yaml") if not path.name.startswith("decode"))
# mini_tot.yaml and demo_gmot.yaml stand beside mini_ctc.yaml and demo_ctc.yaml, train_…_gmot.yaml beside train_….yaml
TWINS = [
    (name, stock)
    for name in TRAIN
    for stock in (name.rsplit("_", 1)[0] + "_ctc.yaml", name.rsplit("_", 1)[0] + ".yaml")
    if stock != name and (CONF / stock).exists()
]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / name).read_text(encoding="utf8"))


def test_every_configuration_is_listed() -> None:
    listed = (CONF / "README.md").read_text(encoding="utf8")
    missing = [path.name for path in CONF.glob("*.yaml") if f"`{path.name}`" not in listed]
    assert not missing


@pytest.mark.parametrize("prefix", ["", "mini_"])
def test_every_preset_has_a_configuration(prefix: str) -> None:
    """In conf/, and among those that run_mini.sh trains on real speech; the stock model is preset ctc."""
    configs = [load(name) for name in TRAIN if name.startswith(prefix)]
    assert {each["model_conf"].get("gmot_conf", {"preset": "ctc"})["preset"] for each in configs} == set(PRESETS)


def test_every_gmot_configuration_has_a_twin() -> None:
    assert {gmot for gmot, _ in TWINS} == {name for name in TRAIN if load(name).get("model") == "gmot"} != set()


@pytest.mark.parametrize(("gmot", "stock"), TWINS)
def test_twins_differ_in_the_transfer_alone(gmot: str, stock: str) -> None:
    ours, theirs = load(gmot), load(stock)
    assert ours.pop("model") == "gmot" and ours.pop("allow_variable_data_keys", True)
    ours["model_conf"].pop("gmot_conf")
    assert ours == theirs


@pytest.mark.espnet
@pytest.mark.parametrize("name", TRAIN)
def test_every_configuration_trains_a_step(task: ModuleType, name: str, tmp_path: Path) -> None:
    config = load(name) | {"token_list": ["<blank>", "<unk>", *"今天气很好", "<sos/eos>"], "output_dir": str(tmp_path)}
    # mini_* and cv_* train on dumped features of whisper-base, 512 wide; the others on waveforms
    extracted = name.startswith(("mini", "cv"))
    config |= {"normalize": None} | ({"input_size": 512} if extracted else {})
    batch = {}
    if config.get("model") == "gmot":
        width = config["model_conf"]["gmot_conf"].setdefault("teacher_width", 24)  # run.sh adds it to the others
        batch = {"teacher": torch.randn(2, 3, width), "teacher_lengths": torch.tensor([3, 2])}
    path = tmp_path / name
    path.write_text(yaml.safe_dump(config, allow_unicode=True))
    args = task.ASRTask.get_parser().parse_args(["--config", str(path)])
    model = task.ASRTask.build_model(args).train()
    speech = torch.randn(2, 90, 512) if extracted else torch.randn(2, 16_000)
    lengths = torch.tensor([speech.shape[1], speech.shape[1] * 3 // 4])
    batch |= {"speech": speech, "speech_lengths": lengths}
    batch |= {"text": torch.tensor([[2, 3, 4], [5, 6, -1]]), "text_lengths": torch.tensor([3, 2])}
    loss, stats, _ = model(**batch)
    loss.backward()
    assert loss.isfinite() and ("loss_gmot" in stats) == ("teacher" in batch)
    if config.get("unused_parameters") is False:
        assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]

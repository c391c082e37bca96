"""`align` from elsewhere than the recipe's folder, and on texts, names, recordings and options that it can't take."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.ctm import read_ctm
from espnet_gmot.report import align_cli

pytestmark = pytest.mark.espnet
FRONTEND = {"input_size": None, "frontend": "default", "frontend_conf": {"n_fft": 256, "hop_length": 128, "n_mels": 8}}


@pytest.fixture
def recipe(build: Callable, tiny_plm: Path, tmp_path: Path) -> Path:
    """A recipe's folder with an experiment and a set, all of whose paths are relative, the online teacher's too."""
    folder = tmp_path / "recipe"
    shutil.copytree(tiny_plm, folder / "plm")
    dev, exp = folder / "dump/raw/dev", folder / "exp/asr"
    dev.mkdir(parents=True)
    exp.mkdir(parents=True)
    model = build(gmot_conf={"teacher": str(folder / "plm"), "backend": "torch"}, token_type="char", **FRONTEND)
    streams = [["dump/raw/dev/wav.scp", "speech", "sound"], ["dump/raw/dev/text", "text", "text"]]
    config = vars(model.args) | {f"{part}_data_path_and_name_and_type": streams for part in ("train", "valid")}
    config["model_conf"]["gmot_conf"]["teacher"] = "plm"
    (exp / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    torch.save(model.state_dict(), exp / "valid.cer_ctc.ave.pth")
    (dev / "wav.scp").write_text("a dump/raw/org/a.wav\n")
    (dev / "text").write_text("a 今天好\n")
    recording(folder / "dump/raw/org/a.wav", 8000)
    return folder


def recording(path: Path, samples: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(1).standard_normal(samples) * 0.1, 16000)
    return path


def test_the_working_directory_may_be_any(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even another recipe's, with files of the same names."""
    from espnet_gmot.report.couplings import ALPHAS, observe

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(recipe / "dump", elsewhere / "dump")
    recording(elsewhere / "dump/raw/org/a.wav", 16000)
    monkeypatch.chdir(elsewhere)
    assert align_cli.main(["../recipe/exp/asr", "--set", "../recipe/dump/raw/dev", "--utt", "a", "--out", "one"]) == 0
    assert json.loads(Path("one/a.json").read_text())["seconds"] == pytest.approx(0.5)
    words = ["--wav", "dump/raw/org/a.wav", "--text", "今天好", "--teacher", "../recipe/plm"]
    assert align_cli.main(["../recipe/exp/asr", *words, "--out", "two"]) == 0
    assert json.loads(Path("two/a.json").read_text())["seconds"] == pytest.approx(1.0)
    (seen,) = observe("gmot", Path("../recipe/exp/asr"), Path("../recipe/dump/raw/dev"), ["a"], {})
    assert seen.seconds == pytest.approx(0.5) and list(seen.by_alpha) == list(ALPHAS)
    (recipe / "dump/raw/org/a.wav").unlink()
    (elsewhere / "dump/raw/org/a.wav").unlink()
    with pytest.raises(UserError, match=r"wav.scp: dump/raw/org/a.wav: no such file: cd to the recipe's folder"):
        align_cli.main(["../recipe/exp/asr", "--set", "../recipe/dump/raw/dev", "--utt", "a", "--out", "one"])


def test_a_text_that_the_model_cannot_spell(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(recipe)
    words = ["exp/asr", "--wav", str(recording(tmp_path / "a b.wav", 8000)), "--out", str(tmp_path / "out"), "--text"]
    with pytest.raises(UserError, match=r"--text 'Hello 龘龘': 8 of 8 tokens aren't .* \(H e l o <space> 龘\): write"):
        align_cli.main([*words, "Hello 龘龘"])
    assert not (tmp_path / "out").exists()
    assert align_cli.main([*words, "今天龘好"]) == 0
    assert "--text '今天龘好': 1 of 4 tokens aren't among the model's (龘): they count as <unk>" in caplog.text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"a_b.{end}" for end in _ENDS}
    assert list(read_ctm(tmp_path / "out/a_b.ctm")) == ["a_b"]  # a space in the recording's name is none in the CTM


_ENDS = ("png", "TextGrid", "ctm", "json")


def test_configurations_that_are_no_longer_whole(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe)
    words, path = ["exp/asr", "--set", "dump/raw/dev", "--utt", "a"], Path("exp/asr/config.yaml")
    whole = path.read_bytes()
    lines = whole.decode().splitlines(keepends=True)
    without = ["".join(line for line in lines if not line.startswith(key)).encode() for key in ("encoder:", "specaug:")]
    for content, said in (
        (b"", "no configuration of an ESPnet2 ASR experiment: model_conf is missing"),
        (whole[: whole.index("天".encode()) + 1], "no YAML: 'utf-8' codec can't decode"),
        (without[0], "describes another model than that of valid.cer_ctc.ave.pth, as if it were cut short"),
        (without[1], "no line `specaug:`, as if it were cut short"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            align_cli.main(words)


def test_recordings_that_are_too_short(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe)
    wav = recording(tmp_path / "short.wav", 100)
    with pytest.raises(UserError, match=r"short: too short for this model: give a longer recording"):
        align_cli.main(["exp/asr", "--wav", str(wav), "--text", "今天好", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--measure", "--max_utts", "-1"], "--max_utts -1: must be at least 1"),
        (["--measure", "--max_utts", "0"], "--max_utts 0: must be at least 1"),
        (["--max_utts", "3"], "--max_utts 3: would be ignored without --measure"),
        (["--preset", "ot", "tot"], "--preset ot tot: would be ignored without --measure"),
        (["--asr_model_file", "1.pth", "2.pth"], "--asr_model_file 2.pth: pictures are drawn of one file at a time"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        align_cli.main(["exp", "--set", "dev", "--utt", "a", *words])

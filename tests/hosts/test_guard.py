"""What the launcher refuses before ESPnet's training overwrites or fails."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from espnet_gmot import launcher
from espnet_gmot.errors import UserError
from espnet_gmot.files import require_free
from espnet_gmot.hosts import guard
from espnet_gmot.hosts.guard import before
from tests.test_files import held

TRAIN = "espnet2.bin.asr_train"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, **content: object) -> str:
    """A YAML file."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(yaml.safe_dump(content))
    return name


@pytest.mark.parametrize(
    ("there", "here", "advice"),
    [
        ({}, {"model": "gmot"}, "another --asr_tag; to start from it, --pretrained_model exp/asr/valid.acc.ave.pth"),
        ({"model": "espnet"}, {"model": "gmot"}, "--pretrained_model exp/asr/valid.acc.ave.pth"),
        ({"model": "gmot"}, {}, "--asr_tag; for a stock model out of it: python3 -m espnet_gmot export exp/asr --out"),
    ],
)
def test_a_trained_model_of_another_kind_stays(there: dict, here: dict, advice: str) -> None:
    old = Path(write("exp/asr/config.yaml", **there)).read_bytes()
    words = ["--config", write("conf/train.yaml", **here), "--output_dir", "exp/asr", "--resume", "true"]
    before(TRAIN, words)  # nothing is trained there yet
    for name in ("checkpoint.pth", "valid.acc.ave.pth", "latest.pth"):
        Path("exp/asr", name).touch()
    with pytest.raises(UserError, match=r"exp/asr: holds a trained model: \w+, whose config.yaml") as caught:
        before(TRAIN, words)
    assert advice in str(caught.value)
    launching = ["--cmd", "run.pl", "--log", "exp/asr/train.log", "--", "python3", "-m", "espnet_gmot", "-m", TRAIN]
    with pytest.raises(UserError, match="holds a trained model"):  # asr.sh's stage 11, before the old log is moved
        before("espnet2.bin.launch", [*launching, *words])
    before(TRAIN, [*words, "--output_dir", "exp/asr_other"])
    before(TRAIN, [*words, "--model", there.get("model", "espnet")])  # the command line overrides the configuration
    before("espnet2.bin.asr_inference", words)
    assert Path("exp/asr/config.yaml").read_bytes() == old


def test_a_second_training_is_refused_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "require_free", partial(require_free, seconds=0.3))
    folder = Path("exp/asr")
    folder.mkdir(parents=True)
    words = ["--output_dir", str(folder)]
    with held(folder):
        for module in (TRAIN, "espnet2.bin.lm_train"):
            for name, before_it in ((module, []), ("espnet2.bin.launch", ["--cmd", "run.pl", "--", "-m", module])):
                with pytest.raises(UserError, match=r"exp/asr: another run writes here"):
                    before(name, [*before_it, *words])
        before(TRAIN, [*words, "--collect_stats", "true"])
        before(TRAIN, [*words, "--dist_rank", "1"])  # its own first process may have begun
    before(TRAIN, words)


def test_options_that_nobody_can_read_are_one_line() -> None:
    with pytest.raises(UserError, match="--collect_stats"):
        before(TRAIN, ["--collect_stats", "maybe"])


def test_training_before_the_statistics_is_sent_to_stage_10() -> None:
    words = ["--config", write("conf/train.yaml", model="gmot"), "--output_dir", "exp/asr"]
    stats = ["--normalize", "global_mvn", "--normalize_conf", "stats_file=exp/stats/train/feats_stats.npz"]
    with pytest.raises(UserError, match=r"exp/stats/train/feats_stats.npz: no such file: .* --stage 10"):
        before(TRAIN, [*words, *stats])
    before(TRAIN, [*words, *stats, "--collect_stats", "true"])
    before(TRAIN, words)
    Path("exp/stats/train").mkdir(parents=True)
    np.savez("exp/stats/train/feats_stats.npz", count=1, sum=np.zeros(80))
    before(TRAIN, [*words, *stats])


def test_the_launcher_says_so_in_one_line(capsys: pytest.CaptureFixture) -> None:
    write("exp/asr/config.yaml", model="espnet")
    Path("exp/asr/1epoch.pth").touch()
    words = ["--config", write("conf/train.yaml", model="gmot"), "--output_dir", "exp/asr"]
    assert launcher.main(["-m", TRAIN, *words]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "holds a trained model: espnet" in said


def test_statistics_of_another_frontend_are_named(shared_whisper: Path) -> None:
    words = ["--frontend", "hf_speech", "--frontend_conf", f"model={shared_whisper}", "--frontend_conf", "fs=16k"]
    for width in (512, 80):
        np.savez(f"stats{width}.npz", count=1, sum=np.zeros(width), sum_square=np.ones(width))
    before(TRAIN, [*words, "--normalize_conf", "stats_file=stats512.npz"])
    before(TRAIN, ["--normalize_conf", "stats_file=stats80.npz"])
    with pytest.raises(UserError, match=r"stats80.npz: statistics of 80 columns.* gives 512: give an --asr_stat"):
        before(TRAIN, [*words, "--normalize_conf", "stats_file=stats80.npz"])


def test_an_online_teachers_width_is_its_own(tiny_plm: Path) -> None:
    conf = {"model": "gmot", "model_conf": {"ctc_weight": 1.0, "gmot_conf": {"teacher_width": 768}}}
    words = ["--config", write("conf/train.yaml", **conf), "--model_conf", f"gmot_conf.teacher={tiny_plm}"]
    with pytest.raises(UserError, match=r"teacher_width: 768, but .* says 12: leave teacher_width out"):
        before(TRAIN, words)
    for width in ("12", "null"):  # run.sh --teacher_mode online says null
        before(TRAIN, [*words, "--model_conf", f"gmot_conf.teacher_width={width}"])
    two = ["--model_conf", "gmot_conf.teacher_layer=[0,1]", "--model_conf", "gmot_conf.teacher_mix=true"]
    before(TRAIN, [*words, *two, "--model_conf", "gmot_conf.teacher_width=24"])


def test_an_archives_width_is_its_own() -> None:
    conf = {"model": "gmot", "model_conf": {"gmot_conf": {"teacher_width": 768}}}
    stream = ["dump/train/t/teacher.scp", "teacher", "kaldi_ark"]
    in_yaml = ["--config", write("a.yaml", **conf, train_data_path_and_name_and_type=[stream])]
    in_words = ["--config", write("b.yaml", **conf), "--train_data_path_and_name_and_type", ",".join(stream)]
    for words in (in_yaml, in_words):
        before(TRAIN, words)
    Path("dump/train/t").mkdir(parents=True)
    Path("dump/train/t/teacher.json").write_text(json.dumps({"width": 384}))
    for words in (in_yaml, in_words):
        with pytest.raises(
            UserError, match=r"teacher_width: 768, but .*teacher.json says 384: write teacher_width: 384"
        ):
            before(TRAIN, words)

"""What the launcher refuses before ESPnet's training overwrites or fails."""

import json
import shutil
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


def archive(folder: str, **note: object) -> list[str]:
    """Words that have a folder's features read; ``note`` is what dump-teacher says of them."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "teacher.json").write_text(json.dumps(note))
    return ["--train_data_path_and_name_and_type", f"{folder}/teacher.scp,teacher,kaldi_ark"]


@pytest.mark.parametrize(
    ("conf", "layer", "message"),
    [
        (
            {"preset": "hcsa"},
            12,
            r"teacher_layer: \[4, 8, 12\], but t/teacher.json says 12: write teacher_layer: 12, or",
        ),
        ({}, [4, 8, 12], r"teacher_layer: -1, but t/teacher.json says \[4, 8, 12\]: .* dump-teacher --layer -1$"),
        ({"teacher_layer": 8}, 12, "teacher_layer: 8, but .* says 12"),
        ({"preset": "hcsa", "teacher_layer": [4, 8, -1]}, [4, 7, 12], r"\[4, 8, -1\], but .* says \[4, 7, 12\]"),
        ({}, 4, None),
        ({"teacher_layer": -2}, 11, None),
        ({"teacher_layer": 8}, 8, None),
        ({"preset": "hcsa"}, [2, 4, 6], None),  # of a teacher of six layers: the preset's were not chosen
        ({"preset": "hcsa", "teacher_layer": [4, 8, -1]}, [4, 8, 12], None),
        ({"teacher_mix": True, "teacher_layer": [4, 8, 12]}, [4, 8, 12], None),
    ],
)
def test_an_archives_layers_are_its_own(conf: dict, layer: object, message: str | None) -> None:
    """One layer of 768 columns passed for three of 256."""
    model_conf = {"gmot_conf": {"teacher_width": 768, **conf}}
    words = ["--config", write("c.yaml", model="gmot", model_conf=model_conf), "--output_dir", "exp/asr"]
    words += archive("t", width=768, layer=layer)
    if message is None:
        before(TRAIN, words)
        return
    with pytest.raises(UserError, match=message):
        before(TRAIN, words)


class Begun:
    """A gmot experiment that has a checkpoint, and calls that go on with it."""

    def __init__(self, *words: str, **conf: object) -> None:
        streams = [words[1].split(",")] if words else []
        content = {"model_conf": {"gmot_conf": conf}, "train_data_path_and_name_and_type": streams}
        write("exp/asr/config.yaml", model="gmot", **content)
        Path("exp/asr/checkpoint.pth").touch()

    def goes_on(self, *words: str, **conf: object) -> None:
        """As ESPnet's stage 11 asks for it."""
        config = write("conf/train.yaml", model="gmot", max_epoch=99, model_conf={"gmot_conf": conf})
        before(TRAIN, ["--config", config, "--output_dir", "exp/asr", "--resume", "true", *words])

    def refused(self, message: str, *words: str, **conf: object) -> None:
        """It must say this, and change nothing."""
        there = Path("exp/asr/config.yaml").read_bytes()
        with pytest.raises(
            UserError, match=rf"^exp/asr: was begun with {message}: give another --asr_tag, or remove it$"
        ):
            self.goes_on(*words, **conf)
        assert Path("exp/asr/config.yaml").read_bytes() == there


def test_a_training_goes_on_with_the_options_it_was_begun_with() -> None:
    begun = Begun(alpha=0.3, teacher_width=8)
    begun.refused(r"alpha: 0.3, not 0.7", alpha=0.7, teacher_width=8)
    begun.refused(r"alpha: 0.3, not 0.5; prior: none, not order", preset="gmot-t")
    begun.goes_on("--max_epoch", "120", alpha="3e-1", backend="torch")
    begun.goes_on("--resume", "false", alpha=0.7)  # from the start
    begun.goes_on("--output_dir", "exp/other", alpha=0.7)
    begun.goes_on("--collect_stats", "true", "--output_dir", "exp/stats", alpha=0.7)
    Path("exp/asr/checkpoint.pth").unlink()
    begun.goes_on(alpha=0.7)


@pytest.mark.filterwarnings("error::FutureWarning")
def test_the_same_options_in_other_words_go_on() -> None:
    Begun(stack=2, preset="gmot-t").goes_on(pool=2, prior="order", order_delta=1.0)
    Begun(pool=2, alphabet=1).goes_on(pool=3)  # by a version that nobody can compare with
    Begun(teacher_layer=-1).goes_on(teacher_layer=12)  # of a teacher of 12 layers
    Begun(teacher_layer=4).refused("teacher_layer: 4, not 12", teacher_layer=12)


def test_a_training_goes_on_with_the_teacher_it_was_begun_with() -> None:
    bert, e5 = {"model": "bert", "model_digest": "1"}, {"model": "e5", "model_digest": "2"}
    old, other = archive("dump/train/teacher_bert", **bert), archive("dump/train/teacher_e5", **e5)
    begun = Begun(*old)
    begun.goes_on(*old)
    begun.refused("features of the teacher: dump/train/teacher_bert, not dump/train/teacher_e5", *other)
    begun.goes_on(*archive("elsewhere/again", **bert, precision="int8"))  # stored otherwise
    begun.refused("teacher: bert, not e5", teacher="e5")
    begun.goes_on(teacher="bert")
    Path("dump/train").rename("dump/moved")
    begun.goes_on("--train_data_path_and_name_and_type", "dump/moved/teacher_bert/teacher.scp,teacher,kaldi_ark")
    begun.refused(
        "features of the teacher: dump/train/teacher_bert, not dump/moved/teacher_e5",
        *("--train_data_path_and_name_and_type", "dump/moved/teacher_e5/teacher.scp,teacher,kaldi_ark"),
    )


def test_an_online_teacher_that_was_moved_is_the_same(tiny_plm: Path) -> None:
    shutil.copytree(tiny_plm, "copy")
    begun = Begun(teacher=str(tiny_plm))
    begun.goes_on(teacher="copy")
    config = json.loads(Path("copy/config.json").read_text())
    Path("copy/config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    begun.refused(f"teacher: {tiny_plm}, not copy", teacher="copy")
    begun.refused("teacher_layer: -1, not 1", teacher=str(tiny_plm), teacher_layer=1)
    Begun(teacher=f"/gone/{tiny_plm.name}").goes_on(teacher=str(tiny_plm))
    Begun(teacher="/gone/bert").refused(f"teacher: /gone/bert, not {tiny_plm}", teacher=str(tiny_plm))
    Begun(teacher=str(tiny_plm)).refused(
        "teacher_stats: null, not dump/t", teacher=str(tiny_plm), teacher_stats="dump/t"
    )
    Begun(teacher=str(tiny_plm), teacher_stats="/old/dump/t").goes_on(teacher=str(tiny_plm), teacher_stats="dump/t")

"""adopt in recipe folders as asr.sh leaves them: what it finds, computes, writes, says and refuses."""

from collections.abc import Callable
from pathlib import Path

import kaldiio
import pytest
import yaml

from espnet_gmot import adopt, launcher
from espnet_gmot.adopt import installation, transcripts
from espnet_gmot.adopt.recipe import look
from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.teacher.normalise import FeatureStats
from tests.teacher.conftest import TEXT, save_bert

CONFIG = "# mine\nencoder: conformer\nmodel_conf:\n    ctc_weight: 0.3  # a third\n"
COMMAND = (
    "./asr.sh --nj 2 --lang zh --token_type char --train_set train --valid_set dev --test_sets 'dev test' "
    "--speed_perturb_factors '0.9 1.0 1.1' --asr_args '--seed 1' --stage 10 \"$@\"; exit $?\n"
)


@pytest.fixture(scope="module")
def plm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random character BERT."""
    return save_bert(tmp_path_factory.mktemp("plm") / "bert", TEXT)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that lays down a recipe folder and goes there: recipe({set: utterances}, command of asr.sh)."""

    def make(sets: dict[str, int], command: str = "", features: str = "raw", tokens: str = "char") -> Path:
        for name, count in sets.items():
            folder = tmp_path / "dump" / features / name
            folder.mkdir(parents=True)
            lines = [f"{i:03} {TEXT[i % len(TEXT)]}\n" for i in range(count)]
            (folder / "text").write_text("".join(lines), encoding="utf8")
        (tmp_path / "conf").mkdir()
        (tmp_path / "conf/train.yaml").write_text(CONFIG)
        units = sorted(set("".join(TEXT))) if tokens == "char" else ["a1", "b2", "n"]
        folder = tmp_path / f"data/zh_token_list/{tokens}"
        folder.mkdir(parents=True)
        (folder / "tokens.txt").write_text("\n".join(["<blank>", "<unk>", *units, "<sos/eos>"]) + "\n", encoding="utf8")
        if command:
            (tmp_path / "exp/asr_stats_raw_zh_char_sp/train").mkdir(parents=True)
            (tmp_path / "exp/asr_stats_raw_zh_char_sp/run.sh").write_text(command)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def test_what_asr_sh_was_told_names_the_sets(recipe: Callable[..., Path]) -> None:
    recipe({"train_sp": 5, "train": 4, "dev": 2, "test": 2, "org/train_sp": 5, "org/train": 4, "org/dev": 2}, COMMAND)
    found = look()
    assert (found.train, found.valid) == (Path("dump/raw/train_sp"), Path("dump/raw/dev"))
    assert found.token_list == Path("data/zh_token_list/char/tokens.txt") and found.stats is None
    assert found.tag("x") == "x_raw_zh_char_sp"
    Path("exp/asr_stats_raw_zh_char_sp/train/speech_shape").touch()
    assert look().stats == Path("exp/asr_stats_raw_zh_char_sp")
    assert look(train="train", valid="test").train == Path("dump/raw/train")


def test_without_experiments_the_unfiltered_copies_tell(recipe: Callable[..., Path]) -> None:
    recipe({"tr_multi": 9, "dt_real": 3, "et_real": 20, "org/tr_multi": 9, "org/dt_real": 3}, features="extracted")
    found = look()
    assert (found.train, found.valid) == (Path("dump/extracted/tr_multi"), Path("dump/extracted/dt_real"))
    assert found.tag("x") == "x"


def test_what_cannot_be_told_is_asked_for(recipe: Callable[..., Path]) -> None:
    folder = recipe({"a_sp": 9, "b": 3, "c": 3})
    with pytest.raises(
        UserError, match="which of a_sp, b, c trains and which validates: give --train_set and --valid_"
    ):
        look()
    with pytest.raises(UserError, match=r"give --valid_set$"):
        look(train="a")  # asr.sh's own name for it, without _sp
    assert look(train="a", valid="c").train == Path("dump/raw/a_sp")
    with pytest.raises(UserError, match="--valid_set d: dump/raw/d/text: no such file; there are a_sp, b, c"):
        look(train="a", valid="d")
    with pytest.raises(UserError, match="--valid_set b: is the training set too"):
        look(train="b", valid="b")
    with pytest.raises(UserError, match=r"dump/fbank_pitch: no dumped sets; there are dump/raw: give --feats_type"):
        look(train="a", valid="b", features="fbank_pitch")
    (folder / "dump").rename(folder / "elsewhere")
    with pytest.raises(UserError, match=r"work in the recipe's folder, after its `./run.sh --stop_stage 5`"):
        look()
    assert look("a", "b", "elsewhere").valid == Path("elsewhere/raw/b")


def run(plm: Path, *words: str) -> int:
    return launcher.main(["adopt", "conf/train.yaml", "--teacher", str(plm), *words])


def test_archives_configuration_and_commands(
    recipe: Callable[..., Path], plm: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = recipe({"train_sp": 7, "dev": 2}, COMMAND)
    (folder / "dump/raw/train_sp/utt2category").touch()
    Path("exp/asr_stats_raw_zh_char_sp/train/speech_shape").touch()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(plm) == 0
    assert {path: path.read_bytes() for path in before} == before  # nothing of the user's has changed
    said = capsys.readouterr().out
    written = yaml.safe_load(Path("conf/train_gmot.yaml").read_text())
    assert written["model_conf"] == {"gmot_conf": {"preset": "gmot", "teacher_width": 32}, "ctc_weight": 0.3}
    (stream,) = written["train_data_path_and_name_and_type"]
    assert stream[1:] == ["teacher", "kaldi_ark"] and len(kaldiio.load_scp(stream[0])) == 7
    # ESPnet looks for categories beside the first stream, which is the configuration's own
    assert Path(stream[0]).with_name("utt2category").resolve() == folder / "dump/raw/train_sp/utt2category"
    (stream,) = written["valid_data_path_and_name_and_type"]
    assert len(kaldiio.load_scp(stream[0])) == 2 and written["allow_variable_data_keys"] is True
    line = '  ./run.sh --stage 11 --python "python3 -m espnet_gmot" --asr_config conf/train_gmot.yaml'
    assert f"{line} --asr_tag train_gmot_raw_zh_char_sp\n" in said
    assert "\n  ./run.sh --stage 11 --asr_config conf/train.yaml\n" in said and "hold 100.0% of" in said
    assert "asr.sh decodes with one unless told otherwise, and exp/ has none: run stages 6 to 8" in said
    assert run(plm) == 0  # again: all is there already
    Path("conf/train_gmot.yaml").write_text("seed: 1\n")
    assert run(plm) == 1 and "says something else: remove it or give --out" in capsys.readouterr().err
    words = ["--teacher_layer", "1", "2", "--preset", "hcsa", "--teacher_opts", "--normalise centre", "--out", "c.yaml"]
    assert run(plm, *words) == 1 and "are no pairs" in capsys.readouterr().err
    assert run(plm, *words[5:]) == 1 and "to keep both, give adopt another --teacher_name" in capsys.readouterr().err
    assert run(plm, *words[5:], "--teacher_name", "centred", "--asr_tag", "t") == 0
    assert Path("dump/raw/dev/centred/teacher.scp").is_file()
    assert yaml.safe_load(Path("c.yaml").read_text())["model_conf"]["gmot_conf"]["centre"] is False
    assert "--asr_tag t\n" in capsys.readouterr().out


def test_teacher_opts_are_read_as_dump_teacher_reads_them(
    recipe: Callable[..., Path], plm: Path, capsys: pytest.CaptureFixture
) -> None:
    """Not by the letters in them: a file's name may hold any."""
    recipe({"train_sp": 7, "dev": 2}, COMMAND)
    Path("nonelang.txt").write_text("<NOISE>\n")
    for name, words in (("a", "--normalise centre --nlsyms_txt nonelang.txt"), ("c", "--normalise=whiten")):
        assert run(plm, f"--teacher_opts={words}", "--teacher_name", name, "--out", f"{name}.yaml") == 0
        assert yaml.safe_load(Path(f"{name}.yaml").read_text())["model_conf"]["gmot_conf"]["centre"] is False, words
        borrowed = [FeatureStats.load(Path("dump/raw", part, name)).key for part in ("train_sp", "dev")]
        assert borrowed[0] == borrowed[1]  # the validation set's are the training set's
    assert run(plm, "--teacher_opts", "--normalise none", "--teacher_name", "b", "--out", "b.yaml") == 0
    assert "centre" not in yaml.safe_load(Path("b.yaml").read_text())["model_conf"]["gmot_conf"]


def test_several_layers_are_mixed_where_the_preset_has_one_tap(
    recipe: Callable[..., Path], plm: Path, capsys: pytest.CaptureFixture
) -> None:
    recipe({"train_sp": 7, "dev": 2}, COMMAND)
    assert run(plm, "--teacher_layer", "2", "3") == 0
    assert "layers     2, 3: mixed by weights that are learned (teacher_mix: true)\n" in capsys.readouterr().out
    conf = yaml.safe_load(Path("conf/train_gmot.yaml").read_text())["model_conf"]["gmot_conf"]
    assert conf == {"preset": "gmot", "teacher_layer": [2, 3], "teacher_mix": True, "teacher_width": 64}
    assert GMOTConfig.from_dict(conf).teacher_mix
    words = ["--preset", "hcsa", "--teacher_layer", "1", "2", "3", "--out", "hcsa.yaml"]
    assert run(plm, *words) == 0 and "mixed" not in capsys.readouterr().out  # a layer for each tap
    assert "teacher_mix" not in yaml.safe_load(Path("hcsa.yaml").read_text())["model_conf"]["gmot_conf"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--bogus", "--teacher_opts '--bogus': unrecognized arguments: --bogus: `python3 -m espnet_gmot dump-"),
        ("--norm=whiten", "unrecognized arguments: --norm=whiten"),
        ("--normalise some", "argument --normalise: invalid choice: 'some'"),
        ("--max_unknown 7", "--max_unknown 7.0: must lie between 0 and 1"),
        ("--layer 2", "--teacher_opts '--layer 2': give --teacher_layer to adopt in place of --layer"),
        ("--out elsewhere", "give --teacher_name to adopt in place of --out"),
    ],
)
def test_bad_teacher_opts_are_found_before_the_work(
    recipe: Callable[..., Path], plm: Path, capsys: pytest.CaptureFixture, words: str, said: str
) -> None:
    recipe({"train_sp": 7, "dev": 2}, COMMAND)
    assert run(plm, f"--teacher_opts={words}") == 1
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and "train " not in printed.out


def test_a_second_call_names_the_experiment_as_the_first_did(
    recipe: Callable[..., Path], plm: Path, capsys: pytest.CaptureFixture
) -> None:
    """Once trained, asr.sh's own record is there, and would name it otherwise."""
    recipe({"train_sp": 7, "dev": 2, "org/train_sp": 7, "org/dev": 2})
    assert run(plm) == 0
    first = capsys.readouterr().out
    assert "--stage 10" in first and "--asr_tag train_gmot\n" in first
    for name in ("asr_stats_raw_zh_char_sp/train", "asr_train_gmot", "lm_train_char"):
        Path("exp", name).mkdir(parents=True)
    for name in ("asr_stats_raw_zh_char_sp/run.sh", "lm_train_char/config.yaml"):
        Path("exp", name).write_text(COMMAND)
    assert run(plm) == 0
    again = capsys.readouterr().out
    assert "--asr_tag train_gmot\n" in again and "exp/asr_train_gmot_stock" in again and "language model" not in again


@pytest.mark.parametrize("script", ["./asr.sh --use_lm false\n", './asr.sh --use-lm "false" \\\n    --nj 2\n'])
def test_a_recipe_without_a_language_model_is_not_told_of_one(
    recipe: Callable[..., Path], plm: Path, capsys: pytest.CaptureFixture, script: str
) -> None:
    recipe({"train_sp": 7, "dev": 2, "org/train_sp": 7, "org/dev": 2})
    Path("run.sh").write_text(script)
    assert run(plm) == 0 and "language model" not in capsys.readouterr().out


def test_online_teachers_read_tokens(recipe: Callable[..., Path], plm: Path, capsys: pytest.CaptureFixture) -> None:
    recipe({"train_sp": 7, "dev": 2}, COMMAND.replace("char", "phn"), tokens="phn")
    assert run(plm, "--teacher_mode", "online") == 1
    assert "phones say nothing to it: give --teacher_mode archive" in capsys.readouterr().err
    assert run(plm) == 0  # the archive's teacher reads the transcripts
    assert "which hold 0.0% of the transcripts" in capsys.readouterr().out
    assert run(plm, "--teacher_mode", "online", "--teacher_opts", "--device cuda") == 1
    Path("data/zh_token_list/phn/tokens.txt").unlink()
    assert run(plm, "--teacher_mode", "online", "--out", "online.yaml") == 0
    written = yaml.safe_load(Path("online.yaml").read_text())
    assert written["model_conf"]["gmot_conf"] == {"preset": "gmot", "teacher": str(plm)}
    assert "train_data_path_and_name_and_type" not in written
    Path("exp/asr_stats_raw_zh_char_sp/run.sh").write_text(COMMAND.replace("--nj 2", "--num_splits_asr 4"))
    assert run(plm) == 1 and "give --teacher_mode online" in capsys.readouterr().err


def test_fine_tuning_starts_from_parameters_that_fit(
    recipe: Callable[..., Path], plm: Path, capsys: pytest.CaptureFixture
) -> None:
    recipe({"train_sp": 7, "dev": 2}, COMMAND)
    trained = Path("exp/asr_x/valid.acc.ave.pth")
    words = ["--init", str(trained), "--teacher_mode", "online"]
    assert run(plm, *words) == 1 and "no such file; exp/asr_x has no *.pth" in capsys.readouterr().err
    trained.parent.mkdir()
    trained.touch()
    (trained.parent / "config.yaml").write_text("encoder: transformer\nseed: 0\n")
    assert run(plm, *words) == 1
    assert "trained with encoder: transformer, but conf/train.yaml says conformer" in capsys.readouterr().err
    (trained.parent / "config.yaml").write_text("encoder: conformer\nencoder_conf:\n    num_blocks: 12\n")
    assert run(plm, *words) == 0
    assert yaml.safe_load(Path("conf/train_gmot.yaml").read_text())["init_param"] == [str(trained)]


def test_an_installation_with_gaps_ends_it(
    recipe: Callable[..., Path], plm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipe({"train_sp": 7, "dev": 2}, COMMAND)
    Path("path.sh").write_text(". ./nowhere.sh\n")
    assert installation.recipe_python().status == "missing" and run(plm) == 1
    assert "path.sh" in capsys.readouterr().out and not Path("conf/train_gmot.yaml").exists()
    Path("python3").write_text("#!/bin/sh\necho '[\"/opt/python3\", false, true]'\n")
    Path("python3").chmod(0o755)
    Path("path.sh").write_text("echo activating; PATH=$PWD:$PATH\n")
    found = installation.recipe_python()
    assert found.detail == "leads to /opt/python3, which has no espnet_gmot"
    assert found.mend.startswith("/opt/python3 -m pip install -e ")


@pytest.mark.parametrize(
    ("tokens", "kind", "share"),
    [
        (["<blank>", "▁HE", "L", "O", "▁"], "pieces", 1.0),
        (["<blank>", "H", "E", "L", "O", "<space>"], "characters", 1.0),
        (["<unk>", "HELLO", "OH"], "words", 0.5),
        (["<unk>", "HH", "AH0", "L", "OW1"], "words", 0.0),
    ],
)
def test_tokens_hold_the_transcripts_or_not(tokens: list[str], kind: str, share: float) -> None:
    assert transcripts.coverage(tokens, ["hello", "HELL"]) == (kind, share)


def test_its_options_are_listed() -> None:
    text = adopt.parser().format_help()
    assert all(option in text for option in ("--teacher", "--preset", "--init", "--teacher_mode", "--train_set"))

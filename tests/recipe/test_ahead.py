"""What is found out before the first stage, not after hours of others."""

from pathlib import Path
from types import ModuleType

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.recipe import ahead, cli, jobs
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.options import parse

WORDS = ["--train_set", "train", "--valid_set", "dev", "--ngpu", "0", "--use_lm", "false"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe after stages 1 to 4, whose stages would be seen to run."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/train", "data/dev", "data/test", "dump/raw/train", "dump/raw/dev", "dump/raw/test"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "text").touch()
    (tmp_path / "dump/raw/org/dev").mkdir(parents=True)
    (tmp_path / "asr.yaml").write_text("model: gmot\n")
    for module in (jobs, ahead):
        monkeypatch.setattr(module, "preload", lambda *modules: None)


def look(*words: str, test_sets: str = "dev test") -> None:
    ahead.look_ahead(Layout(parse([*WORDS, "--test_sets", test_sets, *words])))


@pytest.mark.parametrize("stages", [["--stage", "2"], ["--stage", "3"], ["--stage", "11"], ["--stage", "12"]])
def test_sets_that_no_stage_makes(stages: list[str]) -> None:
    look(*stages)
    with pytest.raises(UserError, match=r"--test_sets 'dev tset': .*/tset: no such folder \(there: .*test.*\); give"):
        look(*stages, test_sets="dev tset")
    look("--stage", "1", test_sets="dev tset")  # stage 1 may make it
    look("--stage", "5", "--stop_stage", "10", test_sets="dev tset")  # nobody asks for it


def test_training_sets() -> None:
    look("--stage", "4", "--stop_stage", "4", "--skip_train", "true")
    for stage, factors, path in (
        ("2", "0.9 1.0", "data/nobody"),
        ("3", "0.9 1.0", "data/nobody_sp"),
        ("3", "", "data/nobody"),
        ("4", "", "dump/raw/org/nobody"),
        ("10", "", "dump/raw/nobody"),
        ("11", "0.9", "dump/raw/nobody_sp"),
    ):
        with pytest.raises(UserError, match=rf"--train_set 'nobody': {path}: no such folder"):
            look("--stage", stage, "--train_set", "nobody", "--speed_perturb_factors", factors)


def test_sets_are_looked_for_once_more_when_the_data_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    for number, (title, _, folder) in cli.STAGES.items():
        monkeypatch.setitem(cli.STAGES, number, (title, lambda _, number=number: ran.append(number), folder))
    with pytest.raises(UserError, match="--test_sets 'dev tset': data/tset: no such folder"):
        cli.run([*WORDS, "--test_sets", "dev tset"])
    assert ran == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--asr_config", "nope.yaml"], "--asr_config nope.yaml: no such file; give the path of one, seen from /"),
        (["--inference_config", "conf/nope.yaml"], "--inference_config conf/nope.yaml: no such file"),
        (["--lm_config", "nope.yaml", "--use_lm", "true"], "--lm_config nope.yaml: no such file"),
        (["--pretrained_model", "nope.pth:encoder"], "--pretrained_model nope.pth:encoder: no such file"),
        (["--nlsyms_txt", "nope.txt"], "--nlsyms_txt nope.txt: no such file"),
        (["--inference_config", "text.yaml"], "text.yaml: no `key: value` lines"),
        (["--asr_config", "asr.yaml", "--asr_args", "--model_conf gmot_conf.alhpa=1"], "alhpa.*'alpha'"),
        (["--asr_config", "asr.yaml", "--asr_args", "--model_conf {a"], "--model_conf {a: no YAML in it"),
    ],
)
def test_files(words: list[str], message: str) -> None:
    Path("text.yaml").write_text("only words\n")
    for stages in (["--stage", "1"], ["--stage", "5", "--stop_stage", "5", "--look_to", "13"]):
        with pytest.raises(UserError, match=message) as caught:
            look(*stages, *words)
        assert "\n" not in str(caught.value)
    look("--stage", "2", "--stop_stage", "4", *words)  # nobody reads it


def test_options_are_read_by_espnets_own_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where another stage would run first: otherwise the program says so at once itself."""
    import argparse

    def get_parser() -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser()
        for name in ("config", "output_dir", "data_path_and_name_and_type"):
            parser.add_argument(f"--{name}")
        parser.add_argument("--beam_size", type=int)
        return parser

    program = ModuleType("program")
    program.get_parser = get_parser  # type: ignore[attr-defined]
    monkeypatch.setitem(jobs.sys.modules, ahead.INFER, program)
    look("--stage", "11", "--inference_args", "--beam_size 3")
    for words, message in (("--beam_sze 3", "unrecognized arguments: --beam_sze 3"), ("--beam_size x", "invalid int")):
        with pytest.raises(UserError, match=rf"^--inference_args '{words}': .*{message}"):
            look("--stage", "11", "--inference_args", words)
    look("--stage", "12", "--inference_args", "--beam_sze 3")
    exp = Path("exp/asr_train_raw_bpe30")
    exp.mkdir(parents=True)
    (exp / ".complete").touch()
    look("--stage", "11", "--inference_args", "--beam_sze 3")

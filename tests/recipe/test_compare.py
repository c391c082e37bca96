"""run_comparison.sh: what it asks of run.sh, how it resumes, and how it guards the test set."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.files import beside
from espnet_gmot.recipe import compare, news
from espnet_gmot.recipe.comparison import Folder
from espnet_gmot.recipe.side_by_side import shares
from espnet_gmot.recipe.systems import parse_systems
from espnet_gmot.report.cells import LATE
from espnet_gmot.report.results import read_results
from tests.recipe import fake_run
from tests.recipe.conftest import RECIPE, ROOT, Experiment

CTC = "model_conf: {ctc_weight: 1.0}\nmax_epoch: 2\nbatch_size: 4\n"
GMOT = f"model: gmot\n{CTC.replace('}', ', gmot_conf: {preset: gmot-t}}')}"


class Bench:
    """Calls `compare` on a folder with a fake run.sh."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.work, self.log = folder, folder / "w", folder / "calls.jsonl"
        (folder / "recipe").mkdir()
        (folder / "recipe/run.sh").write_text(f'exec {sys.executable} {fake_run.__file__} "$@"\n')
        (folder / "c_ctc.yaml").write_text(CTC)
        (folder / "c_gmot-t.yaml").write_text(GMOT)
        (folder / "models/e5").mkdir(parents=True)
        for name in ("config.json", "pytorch_model.bin", "vocab.txt"):
            (folder / "models/e5" / name).write_text("{}")
        monkeypatch.chdir(folder)
        monkeypatch.setenv("FAKE_CALLS", str(self.log))
        monkeypatch.setattr(news, "_SECONDS", 0.0)

    def words(self, *more: str, **changes: str) -> list[str]:
        """A command line."""
        options = {
            "workdir": "w",
            "systems": "ctc gmot-t",
            "teachers": "e5=models/e5",
            "config_prefix": "c_",
            "seeds": "0 1",
        }
        options |= {"recipe": str(self.folder / "recipe"), "cores": "4", "jobs": "2", "data": "corpus"} | changes
        return [word for name, value in options.items() for word in (f"--{name}", value)] + list(more)

    def run(self, *more: str, **changes: str) -> list[tuple[dict[str, str], dict[str, str]]]:
        """Run it; return the calls of run.sh that it made: options and environment."""
        self.log.write_text("")
        assert compare.main(self.words(*more, **changes)) == 0
        return self.calls()

    def calls(self) -> list[tuple[dict[str, str], dict[str, str]]]:
        """What run.sh was asked for since the last call."""
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()]

    def refuses(self, message: str, *more: str, **changes: str) -> None:
        """It must say this in one line."""
        with pytest.raises(UserError, match=message) as caught:
            compare.main(self.words(*more, **changes))
        assert "\n" not in str(caught.value)

    def start(self, *more: str, **changes: str) -> subprocess.Popen:
        """Run it as a process of its own."""
        command = [sys.executable, "-m", "espnet_gmot", "compare", *self.words(*more, **changes)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "FAKE_EPOCH": "60"}
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_data_and_teachers_once_then_cells_side_by_side(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    calls = bench.run("--frontend_opts", "--pool 2")
    stages = [(options["stage"], options["stop_stage"]) for options, _ in calls]
    assert stages == [("1", "10"), ("11", "10")] + 4 * [("11", "13")]
    (data, whole), (teacher, _), *cells = calls
    assert data["test_sets"] == "dev test" and data["frontend_opts"] == "--pool 2" and data["ngpu"] == "0"
    assert "teacher" not in data and whole["OMP_NUM_THREADS"] == whole["NUMBA_NUM_THREADS"] == "4"
    assert (teacher["teacher"], teacher["teacher_name"]) == ("models/e5", "teacher_e5")
    assert "teacher_layer" not in teacher  # run.sh asks the configuration
    assert {options["asr_tag"] for options, _ in cells} == {f"{s}_seed{n}" for s in ("ctc", "gmot-t") for n in (0, 1)}
    for options, env in cells:
        assert options["test_sets"] == "dev" and env["OMP_NUM_THREADS"] == "2" == options["inference_nj"]
        assert ("teacher" in options) == options["asr_tag"].startswith("gmot")
        assert options["asr_args"] == f"--seed {options['asr_tag'][-1]}"
        assert Path(options["asr_config"]).name == f"c_{options['asr_tag'].split('_')[0]}.yaml"
    out = capsys.readouterr().out
    assert "gmot-t seed 1: CER 12.50 % on dev after 2 epochs" in out
    # 0 and 1 of 8 characters: 6.25 ± 6.25 · t(0.975, 1 degree)
    assert ["gmot-t", "2/2", "6.25", "±", "79.41"] in [line.split()[:5] for line in out.splitlines()]
    assert bench.run() == []  # nothing is left to do


def test_another_decoding_by_hand_changes_nothing(bench: Bench) -> None:
    bench.run(systems="ctc", seeds="1")
    before = (bench.work / "results.csv").read_text()
    exp = bench.work / "exp/asr_ctc_seed1"
    shutil.copytree(exp / "decode", exp / "beam10")
    (exp / "beam10/org/dev/score_cer/hyp.trn").write_text("\t(S1-u1)\n\t(S1-u2)\n\t(S2-u3)\n")
    bench.run(systems="ctc", seeds="1")
    assert (bench.work / "results.csv").read_text() == before


def test_every_number_is_in_the_csv(bench: Bench) -> None:
    bench.run(systems="ctc gmot-t w10=gmot-t:w_ot=10,w_align=10")
    results = {(result.system, result.seed): result for result in read_results(bench.work / "results.csv")}
    assert results.keys() == {(name, seed) for name in ("ctc", "gmot-t", "w10") for seed in (0, 1)}
    one = results["w10", 1]
    assert (one.set, one.utterances, one.characters, one.errors) == ("dev", 3, 8, 1)
    assert (one.substitutions, one.deletions, one.insertions, one.wrong, one.cer) == (0, 1, 0, 1, 0.125)
    assert (one.epochs, one.steps, one.phase, one.trials) == (2, 10, "dev", 2)
    assert (one.config, one.teacher, one.options) == ("c_gmot-t.yaml", "e5", "w_ot=10,w_align=10")
    assert "torch" in one.versions and one.commit and "2 threads" in one.hardware and one.cpu_hours > 0
    assert results["ctc", 0].trials == 1 and results["ctc", 0].counts.correct == 8


def test_the_test_set_is_scored_once_and_last(bench: Bench) -> None:
    bench.run(systems="ctc", seeds="0")
    bench.refuses("--final: 1 of 2 cells are unfinished .first: gmot-t seed 0.; train them first", "--final", seeds="0")
    bench.run(seeds="0")
    assert not list(bench.work.glob("exp/*/decode/test"))
    calls = bench.run("--final", seeds="0")
    assert [(o["stage"], o["stop_stage"], o["test_sets"]) for o, _ in calls] == 2 * [("12", "13", "test")]
    phases = {(r.system, r.set): r.phase for r in read_results(bench.work / "results.csv")}
    assert "*" not in (bench.work / "comparison.txt").read_text()
    assert phases == {(s, n): p for s in ("ctc", "gmot-t") for n, p in (("dev", "dev"), ("test", "final"))}
    assert bench.run("--final", seeds="0") == [] == bench.run(seeds="0")
    bench.refuses("ctc seed 1 is not trained, but w had its test set scored on 20.*--after_final, which marks")
    bench.refuses("--test_sets: the final sets of w are test; give these", "--final", seeds="0", test_sets="test other")
    bench.run("--after_final")
    bench.refuses("--final: the test set was scored on .* without ctc seed 1", "--final")
    bench.run("--final", "--after_final")
    told = (bench.work / "comparison.txt").read_text().splitlines()
    assert [line.split()[0] for line in told[2:4]] == ["ctc*", "gmot-t*"] and told[-1] == LATE
    late = {r.phase for r in read_results(bench.work / "results.csv") if r.seed == 1}
    assert late == {"after"} and len(read_results(bench.work / "results.csv")) == 8


def test_an_early_look_at_the_test_set_is_found(bench: Bench) -> None:
    bench.run(systems="ctc", seeds="0")
    fake_run.write(bench.work / "exp/asr_ctc_seed0/beam/test/score_cer/result.txt", "")
    bench.refuses("beam/test/score_cer/result.txt: test was scored before --final", systems="ctc", seeds="0")


def test_changed_cells_and_data_are_not_mixed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(systems="ctc", seeds="0")
    (bench.folder / "c_ctc.yaml").write_text(f"# a comment changes nothing\n{CTC}")
    assert bench.run(systems="ctc", seeds="0") == []
    bench.refuses("asr_ctc_seed0: was trained with another configuration", systems="ctc", seeds="0", epochs="3")
    bench.refuses("asr_ctc_seed0: was trained with another", systems="ctc", seeds="0", inference_args="--beam_size 3")
    monkeypatch.setenv("FAKE_SHAPE", "u1 18,80")
    bench.refuses("w: its cells were trained on other data", systems="ctc", seeds="1")
    fake_run.write(bench.work / "exp/asr_gmot-t_seed0/config.yaml", "")
    bench.refuses("asr_gmot-t_seed0: holds an experiment that no comparison began", systems="gmot-t", seeds="0")


def test_sets_that_nobody_named_are_no_data(bench: Bench) -> None:
    """Nor is a test set that comes later; those of the folder stay what they were."""
    words = {"systems": "ctc", "seeds": "0"}
    bench.run(**words)
    fake_run.write(bench.work / "data/test2/text", "u9 你好\n")
    assert len(bench.run(systems="ctc", seeds="0 1")) == 2
    assert len(bench.run(systems="ctc", seeds="0 1 2", test_sets="test test2")) == 2
    fake_run.write(bench.work / "data/train/text", "u0 今天\n")
    bench.run("--stage", "11", systems="ctc", seeds="0 1 2 3")
    fake_run.write(bench.work / "data/train/text", "u0 明天\n")
    bench.refuses(r"w: its cells were trained on other data \(data/train\)", "--stage", "11", systems="ctc", seeds="4")


def test_a_folder_of_before_is_gone_on_with(bench: Bench) -> None:
    """Its digest was one of everything below data/."""
    bench.run(systems="ctc", seeds="0")
    folder = Folder(bench.work, "dev", ["test"])
    for sets in (["*"], ["train", "dev", "test"]):
        folder.remember(data=folder.data_digest(sets))
        fake_run.write(bench.work / "data/test2/text", "u9 你好\n")
        bench.run(systems="ctc", seeds=f"0 {len(sets)}")
        assert isinstance(folder.note["data"], dict)
    folder.remember(data="0" * 64)
    bench.refuses("w: its cells were trained on other data", systems="ctc", seeds="9")


def test_a_teacher_is_no_data(bench: Bench) -> None:
    bench.run(systems="ctc", seeds="0")
    # without a system that has no teacher, stage 10 sees the teacher's stream too
    assert len(bench.run(systems="gmot-t", seeds="0")) == 3
    assert (bench.work / "exp/asr_stats_raw/train/teacher_shape").is_file()
    assert len(bench.run(systems="ctc gmot-t", seeds="0 1")) == 4


def test_a_comparison_that_was_killed_while_it_wrote_a_table_leaves_no_half_of_it(bench: Bench) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = beside(bench.work / "comparison.txt").name
    half, others = (mine.replace(f"-{os.getpid()}.", f"-{process}.") for process in (ended.pid, 1))
    bench.work.mkdir(exist_ok=True)
    for name in (half, others):
        (bench.work / name).touch()
    bench.run()
    assert not (bench.work / half).exists() and (bench.work / others).exists()


def test_a_failed_cell_is_named_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "gmot-t_seed0")
    bench.refuses("1 cells failed, the first: gmot-t seed 0: no more ink .status 1; all of it: .*comparison.log.*again")
    assert len(read_results(bench.work / "results.csv")) == 3
    monkeypatch.delenv("FAKE_FAIL")
    assert [options["asr_tag"] for options, _ in bench.run()[2:]] == ["gmot-t_seed0"]


def test_the_reason_is_of_this_call_not_of_an_earlier_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "ctc_seed0")
    bench.refuses("no more ink", systems="ctc", seeds="0")
    monkeypatch.setenv("FAKE_SAID", "no more paper")
    bench.refuses("no more paper", systems="ctc", seeds="0")


def test_a_missing_teacher_is_named_before_the_data_are_made(bench: Bench) -> None:
    bench.refuses("teacher './models/e6': there is no such folder", teachers="e5=./models/e6")
    assert not bench.log.exists()
    (data, _), *_ = bench.run(seeds="0")
    assert (data["stop_stage"], data["look_to"]) == ("10", "13")


def test_options_that_name_models_or_are_long(bench: Bench) -> None:
    model = bench.folder / "X.pth"
    model.write_bytes(b"PK\x03\x04\xff\xfe")
    words = {"systems": "ctc", "seeds": "0", "pretrained_model": str(model), "lm_args": "--max_epoch 1 " + "x" * 300}
    bench.run(**words)
    assert bench.run(**words) == []
    model.write_bytes(b"PK\x03\x04\xff\xff")
    bench.refuses("asr_ctc_seed0: was trained with another configuration", **words)


def running(folder: Path, count: int, begun: int) -> set[int]:
    """Wait until so many fake trainings run that have begun so many epochs in all; their process ids."""
    for _ in range(300):
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        found = {
            pid for pid in pids if fake_run.__file__ in read(pid, "cmdline") and str(folder) in read(pid, "environ")
        }
        logs = folder.glob("w/exp/*_seed*/train.log")
        if len(found) == count and sum(log.read_text().count("epoch started") for log in logs) == begun:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{count} trainings expected, {found} run")


def read(pid: int, what: str) -> str:
    """A file of a process in /proc; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
    except OSError:
        return ""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
def test_interruption_ends_the_cells_and_a_killed_comparison_holds_the_folder(bench: Bench) -> None:
    process = bench.start(seeds="0")
    running(bench.folder, 2, begun=2)
    process.terminate()
    assert process.wait(20) == 143
    running(bench.folder, 0, begun=2)
    # killed outright: what it left running keeps others out, until it ends
    process = bench.start(seeds="0")
    left = running(bench.folder, 2, begun=4)
    process.kill()
    process.wait()
    bench.refuses("--workdir w: another comparison, or what a killed one left running, works there", seeds="0")
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    running(bench.folder, 0, begun=4)
    bench.run(seeds="0")
    started = (bench.work / "exp/asr_ctc_seed0/train.log").read_text().count("1/2epoch started")
    assert started == 3  # twice interrupted in its first epoch
    assert {r.epochs for r in read_results(bench.work / "results.csv")} == {2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"systems": "ctc@e5"}, "'ctc@e5': takes no features of a teacher"),
        ({"systems": "gmot-t@e6"}, r"no teacher 'e6' in --teachers \(e5\)"),
        ({"systems": "gmot-t", "teachers": "a=b c=d"}, r"'gmot-t': needs a teacher: @NAME, one of --teachers \(a, c\)"),
        ({"systems": "gmto"}, "'gmto': c_gmto.yaml: no such configuration"),
        ({"systems": "ctc:w_ot=1"}, "w_ot is an option of model: gmot, which"),
        ({"systems": "gmot-t:alpha=2"}, "alpha: got 2, expected a number in"),
        ({"systems": "gmot-t:alpha"}, "'alpha' is no OPTION=VALUE"),
        ({"systems": "a+b=ctc a*b=ctc"}, r"a\+b and a\*b would share a folder"),
        ({"systems": " "}, "--systems: name at least one"),
        ({"systems": "ctc long=ctc:max_epoch=9"}, 'long has max_epoch: 9, ctc has 2.*--other_budget "long"'),
        ({"other_budget": "x"}, "--other_budget x: no such system"),
        ({"teachers": "e5 b"}, "--teachers: 'e5': write each as NAME=DIR"),
        ({"seeds": "a"}, "--seeds 'a': give whole numbers"),
        ({"jobs": "0"}, "--jobs 0, --cores 4: must be at least 1"),
        ({"test_sets": "dev"}, "--test_sets: dev is the validation set"),
        ({"asr_config": "x"}, "--asr_config: the comparison sets it itself"),
        ({"sede": "1"}, "--sede: no such option; did you mean --seeds"),
    ],
)
def test_bad_options_are_named(bench: Bench, changes: dict[str, str], message: str) -> None:
    bench.refuses(message, **changes)
    assert not (bench.work / "results.csv").exists()


def test_a_longer_training_must_be_named(bench: Bench) -> None:
    calls = bench.run(systems="ctc long=ctc:max_epoch=9", other_budget="long", seeds="0")
    assert {o["asr_tag"]: o["asr_args"] for o, _ in calls[1:]} == {
        "ctc_seed0": "--seed 0",
        "long_seed0": "--max_epoch 9 --seed 0",
    }


def test_options_become_those_of_asr_train(bench: Bench) -> None:
    text = "m=gmot-t@e5:teacher_layer=[4,8],teacher_mix=true,encoder_conf.num_blocks=6,grad_clip=3"
    (system,) = parse_systems(text, ["e5"], "c_", bench.folder)
    assert system.asr_args.split() == [
        "--model_conf", "gmot_conf.teacher_layer=[4,8]", "--model_conf", "gmot_conf.teacher_mix=true",
        "--encoder_conf", "num_blocks=6", "--grad_clip", "3",
    ]  # fmt: skip
    assert system.gmot.layers == [4, 8] and system.settings["encoder_conf"] == {"num_blocks": 6}
    # without a transfer it is a stock model, which needs no teacher
    (null,) = parse_systems("null=gmot-t:preset=ctc", [], "c_", bench.folder)
    assert null.teacher is None


def test_cores_and_gpus_are_shared_out() -> None:
    assert [each["OMP_NUM_THREADS"] for each in shares(3, 8, [], 0)] == ["2", "2", "2"]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shares(3, 8, ["4", "5", "6"], 2)] == ["4,5", "6,4", "5,6"]
    with pytest.raises(UserError, match="--ngpu 2: there are 1 GPUs"):
        shares(1, 8, ["0"], 2)


def test_forecast() -> None:
    cells = [("a", 4, [10.0, 10.0]), ("a", 4, []), ("b", 4, [20.0, 20.0, 20.0, 20.0])]
    assert news.forecast(cells, [True, True, False], 1) == 60
    assert news.forecast(cells, [True, True, False], 2) == 40  # the longest cell
    assert news.forecast([("a", 4, [])], [True], 1) == 0


@pytest.mark.espnet
def test_a_real_cell(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch through the real run.sh, on the data of the engine's tests."""
    (tmp_path / "exp").mkdir()
    for name in ("data", "dump", "config.yaml", "decode.yaml", "exp/asr_stats_raw_zh_char_sp"):
        (tmp_path / name).symlink_to(experiment.folder / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    words = f"--workdir . --recipe {RECIPE} --systems real=config.yaml --seeds 3 --stage 11".split()
    words += ["--speed_perturb_factors", "0.9 1.0", "--inference_config", "decode.yaml"]
    assert compare.main([*words, "--inference_asr_model", "valid.cer_ctc.best.pth"]) == 0
    (result,) = read_results("results.csv")
    assert (result.system, result.seed, result.set, result.epochs, result.utterances) == ("real", 3, "dev", 1, 4)
    assert result.hours > 0 and result.steps > 0 and result.counted_by in ("sclite", "jiwer")

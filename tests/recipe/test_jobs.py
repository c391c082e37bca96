"""How ESPnet's programs are run, by a program of our own."""

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.files import require_free
from espnet_gmot.hosts import guard
from espnet_gmot.recipe import ahead, cli, decode, lm, train
from espnet_gmot.recipe.jobs import Job, TrainingEcho, check_gpus, run_one, run_parts
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.options import parse
from tests.test_files import held

PROGRAM = """
import os, time
from pathlib import Path
import torch

IMPORTED_BY, CUDA = os.getpid(), torch.cuda.is_available()
if "FAKE_GPUS" in os.environ:
    torch.cuda.device_count = lambda: 2

def main(cmd):
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    print(f"imported by itself: {IMPORTED_BY == os.getpid()}, CUDA: {CUDA}, GPUs: {gpus}")
    print("options:", *cmd, "threads:", torch.get_num_threads())
    if "--sum" in cmd:
        print("sum on the GPU:", torch.ones(3, device="cuda").sum().item())
    if "--fail" in cmd:
        raise RuntimeError("it broke")
    if "--touch" in cmd:
        Path(cmd[cmd.index("--touch") + 1]).touch()
    if "--wait" in cmd:
        end = time.monotonic() + 120
        while not Path(cmd[cmd.index("--wait") + 1]).exists():
            assert time.monotonic() < end, "nobody else came"
            time.sleep(0.05)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a program's module that nobody has imported yet."""
    name = f"program_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return name


def test_a_program_without_gpu_is_forked_from_one_import(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which asks for no CUDA, even where there is some: forks that ask again would fail. They see no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    told: list[str] = []
    run_one(Job(program, ("--a", "b c"), tmp_path / "log"), echo=told.append)
    assert told[-2:] == ["imported by itself: False, CUDA: False, GPUs: ", "options: --a b c threads: 2"]
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert log.startswith(f"# python3 -m espnet_gmot -m {program} --a 'b c'\n")
    assert program in sys.modules and torch.cuda.is_available()


def test_a_program_on_a_gpu_has_an_interpreter_of_its_own(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA doesn't survive a fork of a process that has asked for it."""
    monkeypatch.setenv("FAKE_GPUS", "")
    told: list[str] = []
    run_one(Job(program, ("--ngpu", "2"), tmp_path / "log"), echo=told.append)
    assert "imported by itself: True" in told[-2] and told[-2].endswith("GPUs: None")
    with pytest.raises(UserError, match=rf"^{program} failed: RuntimeError: it broke \(all of it: "):
        run_one(Job(program, ("--fail", "--ngpu=1"), tmp_path / "log"), echo=told.append)
    assert program not in sys.modules


def test_no_two_parts_share_a_gpu(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part 0 holds the first until part 2 has run, which must do with the second."""
    monkeypatch.setenv("FAKE_GPUS", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    flag = str(tmp_path / "flag")
    words = [("--wait", flag), ("--quick",), ("--touch", flag)]
    jobs = [Job(program, (*more, "--ngpu", "1"), tmp_path / f"log.{part}") for part, more in enumerate(words)]
    folders = [tmp_path / str(part) for part in range(3)]
    for folder in folders:
        folder.mkdir()
    assert run_parts(jobs, folders, processes=2, unit="part")
    assert program not in sys.modules
    for part, gpu in enumerate("477"):
        assert f", GPUs: {gpu}\n" in (tmp_path / f"log.{part}").read_text(encoding="utf-8")


def test_on_a_gpu_after_this_process_has_asked_for_it(program: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    told: list[str] = []
    run_one(Job(program, ("--sum", "--ngpu", "1"), tmp_path / "log"), echo=told.append)
    assert told[-1] == "sum on the GPU: 3.0"


@pytest.mark.parametrize(
    ("words", "ngpu"),
    [
        ("", 0),
        ("--ngpu 0", 0),
        ("--ngpu 4 --lr 1", 4),
        ("--ngpu=2", 2),
        ("--ngpu 2 --ngpu 0", 0),
        ("--ngpu", 0),
        ("--ngpu x", 0),
        ("--x ngpu 3", 0),
    ],
)
def test_what_a_program_asks_for(words: str, ngpu: int) -> None:
    assert Job("program", tuple(words.split()), Path("log")).ngpu == ngpu


@pytest.mark.parametrize(("there", "advice"), [(0, "give --ngpu 0 to train on the CPU"), (1, "give --ngpu 1")])
def test_gpus_that_are_missing(monkeypatch: pytest.MonkeyPatch, there: int, advice: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    check_gpus(there)
    with pytest.raises(UserError, match=f"^--ngpu 4: torch sees {there} GPUs; {advice}$"):
        check_gpus(4)


LOG = """[h:0/2] 2026-11-26 (trainer:1) INFO: 1epoch started
Traceback (most recent call last):
  File "x.py", line 1, in main
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB
Traceback (most recent call last):
  File "y.py", line 1, in spawn
torch.multiprocessing.spawn.ProcessExitedException: process 1 terminated with exit code 1
"""


def test_the_reason_of_one_of_several_gpus_is_told(program: str, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(LOG)
    (tmp_path / f"{program}.py").write_text(
        f"import sys\ndef main(cmd):\n    print(open({str(tmp_path / 'said')!r}).read())\n    sys.exit(1)\n"
    )
    with pytest.raises(UserError, match=r"failed: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"):
        run_one(Job(program, (), tmp_path / "log"), echo=lambda line: None)


WORDS = "--train_set train --valid_set dev --test_sets test --use_lm false --ngpu 4"


class TestStages:
    """What the stages ask for."""

    @pytest.fixture
    def layout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
        """A recipe with 4 GPUs, of which the machine has one."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        return Layout(parse(WORDS.split()), "run")

    def test_gpus_are_looked_for_before_the_first_stage(self, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        words = WORDS.split()
        for more, wrong in (
            ([], True),
            (["--stop_stage", "10"], False),
            (["--stage", "12"], False),
            (["--stage", "12", "--gpu_inference", "true"], False),
            (["--ngpu", "1"], False),
            (["--ngpu", "0"], False),
        ):
            layout = Layout(parse([*words, *more]), "run")
            if wrong:
                with pytest.raises(UserError, match="--ngpu 4: torch sees 1 GPUs; give --ngpu 1"):
                    ahead.require_gpus(layout)
            else:
                ahead.require_gpus(layout)
        layout = Layout(parse(words), "run")
        layout.asr_exp.mkdir(parents=True)
        (layout.asr_exp / ".complete").touch()
        ahead.require_gpus(layout)  # trained already, elsewhere
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        for more in ("--ngpu 0 --gpu_inference true", "--stage 12 --inference_args --ngpu=1"):
            with pytest.raises(UserError, match=r"^decoding .* torch sees none: give --gpu_inference false$"):
                ahead.require_gpus(Layout(parse([*words, *more.split()]), "run"))

    def test_gpus_of_later_calls_are_looked_for_too(self) -> None:
        words = ["--stop_stage", "9", "--look_to", "13"]
        with pytest.raises(UserError, match="--ngpu 4: torch sees"):
            ahead.require_gpus(Layout(parse([*WORDS.split(), *words]), "run"))

    @pytest.mark.parametrize("taken", ["held", "another kind", "other options"])
    def test_a_refused_training_leaves_the_experiment_as_it_is(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch, taken: str
    ) -> None:
        monkeypatch.setattr(guard, "require_free", partial(require_free, seconds=0.3))
        exp = layout.asr_exp
        exp.mkdir(parents=True)
        for name in ("config.yaml", "train.log", "run.sh", "checkpoint.pth"):
            (exp / name).write_text("model: gmot\n" if taken == "other options" else "model: espnet\n")
        kind = "espnet" if taken == "held" else "gmot"
        words = ("--output_dir", str(exp), "--model", kind, "--resume", "true")
        if taken == "other options":
            words += ("--model_conf", "gmot_conf.alpha=0.7")
        job = Job("espnet2.bin.asr_train", words, exp / "train.log")
        with held(exp) if taken == "held" else nullcontext():
            there = {path.name: path.read_bytes() for path in exp.iterdir()}
            with pytest.raises(
                UserError, match=r"another run writes here|holds a trained model: espnet|alpha: 0.5, not 0.7"
            ):
                train.run_training(layout, job, exp, 11)
            assert {path.name: path.read_bytes() for path in exp.iterdir()} == there

    def test_the_console_tells_that_nothing_is_left_to_train(self) -> None:
        start, said = "[vm] 2026-01-01 00:00:00,000 (trainer:249)", "The training has already reached at max_epoch: 61"
        assert TrainingEcho()(f"{start} WARNING: {said}") == said
        assert TrainingEcho()(f"{start} WARNING: something else") is None

    @pytest.mark.parametrize(
        ("script", "mode", "message"),
        [
            ("#!/bin/sh\nexit 3\n", 0o755, "local/{}.sh: exit status 3; the reason is above"),
            ("#!/bin/sh\n", 0o644, "local/{0}.sh: Permission denied; chmod [+]x local/{0}.sh"),
            ("#!/no/such/program\n", 0o755, "local/{}.sh: No such file or directory; chmod .* its first line"),
            ("#!/bin/sh\n", 0o755, None),
        ],
    )
    def test_the_corpus_own_scripts(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch, script: str, mode: int, message: str | None
    ) -> None:
        """A failure is one line, and what was scored before is in RESULTS.md."""
        monkeypatch.setattr(cli.score, "score", lambda layout: None)
        Path("local").mkdir()
        for name in ("data", "score"):
            path = Path("local", f"{name}.sh")
            path.write_text(script)
            path.chmod(mode)
        layout.asr_exp.mkdir(parents=True)
        for name, stage in (("data", cli.prepare), ("score", cli.score_sets)):
            with pytest.raises(UserError, match=message.format(name)) if message else nullcontext():
                stage(layout)
        assert (layout.asr_exp / "RESULTS.md").is_file()

    def test_perplexity_runs_on_one(self, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        jobs: list[Job] = []
        monkeypatch.setattr(lm, "run_one", lambda job, echo: jobs.append(job))
        monkeypatch.setattr(lm, "clean_copy", lambda layout, path: path)
        folder = layout.lm_exp / "perplexity_test"
        folder.mkdir(parents=True)
        (folder / "ppl").write_text("12.5\n")
        assert lm.perplexity(layout) == 12.5 and jobs[0].ngpu == 1

    def test_statistics_run_on_none(self, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        jobs: list[Job] = []
        layout.args.asr_args = "--ngpu 2"
        monkeypatch.setattr(train, "run_stats", lambda found, *_, **__: jobs.extend(found))
        for name in ("check_streams", "list_unalignable", "split_table", "write_resume_script"):
            monkeypatch.setattr(train, name, lambda *_, **__: None)
        monkeypatch.setattr(train, "count_lines", lambda path: 2)
        monkeypatch.setattr(train, "common_options", lambda layout: [])
        monkeypatch.setattr(train, "input_options", lambda layout: ["--config", "with ngpu 1"])
        monkeypatch.setattr(train, "data_options", lambda *_: [])
        monkeypatch.setattr(Layout, "speech", lambda *_: ("wav.scp", "sound"))
        train.collect_stats(layout)
        assert len(jobs) == 2 and {job.ngpu for job in jobs} == {0}

    @pytest.mark.parametrize("words", [{"gpu_inference": True}, {"inference_args": "--beam_size 2 --ngpu 1"}])
    def test_decoding_takes_all_and_no_more(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch, words: dict[str, object]
    ) -> None:
        seen = SimpleNamespace()
        vars(layout.args).update(words)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(decode, "run_parts", lambda jobs, *_, **more: vars(seen).update(jobs=jobs, **more))
        monkeypatch.setattr(decode, "split_table", lambda *_: None)
        monkeypatch.setattr(decode, "count_lines", lambda path: 1000)
        monkeypatch.setattr(Layout, "speech", lambda *_: ("wav.scp", "sound"))
        decode._decode_set(layout, "test")
        assert seen.processes == 2 and len(seen.jobs) == 8 and {job.ngpu for job in seen.jobs} == {1}

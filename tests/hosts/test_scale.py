"""ESPnet's own trainer at scale: several processes, accumulation, kills, mixed precision, no unused parameters."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hosts.conftest import ENCODERS, HOSTS
from tests.hosts.training import BATCH, EPOCHS, ROOT, Curve, Training, begin

pytestmark = pytest.mark.espnet

SCHEDULE = {"teacher_width": 12, "backend": "torch", "warmup": 3, "alpha_warmup": 5}
CASES: dict[str, dict[str, Any]] = {
    "ctc": {"model_conf": {"ctc_weight": 1.0, "gmot_conf": {**SCHEDULE, "frame_weights": "blank", "residual": True}}},
    "hybrid": {
        **HOSTS["hybrid"],
        "encoder": "transformer",
        "encoder_conf": ENCODERS["transformer"],
        "model_conf": {
            "ctc_weight": 0.3,
            "gmot_conf": {**SCHEDULE, "tap": ["encoder.0", "encoder"], "teacher_layer": [1, 2]},
        },
    },
}


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(tmp_path_factory.mktemp("scale"))


@pytest.fixture(scope="module")
def curves(training: Training) -> dict[tuple[str, int], Curve]:
    """The curves of undisturbed trainings, by case and number of processes."""
    found = {}
    for case, config in CASES.items():
        for world in (1, 2):
            assert training.run(f"{case}{world}", config, world=world) == [0] * world
            found[case, world] = training.curve(f"{case}{world}")
    return found


def assert_close(curve: Curve, expected: Curve, tolerance: float = 1e-5) -> None:
    """Every loss of every epoch agrees; ``pytest -rP`` shows how closely."""
    assert curve.keys() == expected.keys()
    pairs = [(curve[epoch][name], value) for epoch, losses in expected.items() for name, value in losses.items()]
    print(f"largest relative difference: {max(abs(a - b) / max(abs(b), 1e-9) for a, b in pairs):.1e}")
    for epoch, losses in expected.items():
        assert curve[epoch] == pytest.approx(losses, rel=tolerance), f"epoch {epoch}"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_same_seed_gives_the_same_losses_bit_for_bit(training: Training, curves: dict, workers: int) -> None:
    """Again, and whatever the number of data loaders: losses and parameters."""
    name = f"workers{workers}"
    assert training.run(name, CASES["ctc"], num_workers=workers) == [0]
    assert training.curve(name) == curves["ctc", 1]
    again, first = (training.checkpoint(each)["model"] for each in (name, "ctc1"))
    assert all(torch.equal(value, first[key]) for key, value in again.items())


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_does(curves: dict, case: str) -> None:
    one = curves[case, 1]
    assert len(one) == EPOCHS and one[EPOCHS]["train loss_ctc"] < one[1]["train loss_ctc"]
    assert_close(curves[case, 2], one)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(training: Training, curves: dict) -> None:
    assert training.run("killed", CASES["ctc"], dies=(0, 6)) == [-9]  # in the third epoch
    assert training.checkpoint("killed")["reporter"]["epoch"] == 2
    assert training.run("killed", CASES["ctc"]) == [0]
    assert_close(training.curve("killed"), curves["ctc", 1])


def test_a_dead_rank_ends_the_others_and_all_can_resume(training: Training, curves: dict) -> None:
    codes = training.run("dead", CASES["ctc"], world=2, dies=(1, 6))
    assert codes[1] == -9 and codes[0] > 0  # an error, neither success nor a wait for ever
    assert training.run("dead", CASES["ctc"], world=2) == [0, 0]
    assert_close(training.curve("dead"), curves["ctc", 2])


def test_accumulated_halves_are_the_whole_batch(training: Training) -> None:
    # the running mean of the teacher's features and a schedule in steps see batches: without them, the curves agree
    still = {**SCHEDULE, "schedule_unit": "epoch"}
    for name, centre in (("exact", False), ("centred", True)):
        config = {"model_conf": {"ctc_weight": 1.0, "gmot_conf": {**still, "centre": centre}}}
        assert training.run(f"{name} whole", config, batch_size=2 * BATCH) == [0]
        assert training.run(f"{name} halves", config, accum_grad=2) == [0]
    assert_close(training.curve("exact halves"), training.curve("exact whole"))
    # with a mean that has seen one half when the first is learnt, nearly so, and after an epoch it is the same mean
    assert_close(training.curve("centred halves"), training.curve("centred whole"), 0.05)
    whole, halves = (training.checkpoint(f"centred {name}")["model"] for name in ("whole", "halves"))
    assert halves["gmot.teacher_rows"] == whole["gmot.teacher_rows"] > 0
    torch.testing.assert_close(halves["gmot.teacher_mean"], whole["gmot.teacher_mean"])
    assert halves["gmot.time"] == whole["gmot.time"] == EPOCHS


@pytest.mark.parametrize("options", [{"train_dtype": "float64"}, {"use_amp": True}])
def test_other_precisions_give_the_same_curve_on_a_cpu(training: Training, curves: dict, options: dict) -> None:
    name = "_".join(options)
    assert training.run(name, CASES["ctc"], **options) == [0]
    assert_close(training.curve(name), curves["ctc", 1], 1e-3)


def train_unequally(rank: int, words: list[str], folder: Path) -> None:
    """Two epochs in which this rank has as many batches as its number says more than rank 0."""
    begin(folder / f"unequal.{rank}.log")
    from espnet2.tasks.asr import ASRTask
    from espnet2.train.distributed_utils import DistributedOption
    from espnet2.train.reporter import Reporter

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/unequal", rank=rank, world_size=2)
    args: Namespace = ASRTask.get_parser().parse_args(words)
    torch.manual_seed(0)
    model = ASRTask.build_model(args)
    several = torch.nn.parallel.DistributedDataParallel(model)
    options, where = ASRTask.trainer.build_options(args), DistributedOption(distributed=True)
    batches = ASRTask.build_iter_factory(args, DistributedOption(), "train")
    optimizers, reporter = ASRTask.build_optimizers(args, model), Reporter()
    for epoch in (1, 2):
        own = list(batches.build_iter(epoch))[: 1 + rank]
        reporter.set_epoch(epoch)
        with reporter.observe("train") as report:
            ASRTask.trainer.train_one_epoch(several, own, optimizers, [None], None, report, None, options, where)
            assert len(report.stats["loss"]) == 1
        with reporter.observe("valid") as report:
            ASRTask.trainer.validate_one_epoch(several, own, report, options, where)
            assert len(report.stats["loss"]) == 1
    for value in model.state_dict().values():
        theirs = value.clone()
        torch.distributed.broadcast(theirs, 0)
        assert torch.equal(value, theirs)


def test_ranks_with_unequal_numbers_of_batches_stop_together(training: Training) -> None:
    words = training.options("unequal", CASES["hybrid"])
    assert training.forks([(train_unequally, rank, words, training.folder) for rank in range(2)]) == [0, 0]


SLURM = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift 2; done
log=$1; shift
exec "$@" > "${log}" 2>&1
"""
SRUN = """#!/usr/bin/env bash
shift    # --export=ALL
export SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST=localhost SLURM_LOCALID=0
SLURM_PROCID=0 SLURM_NODEID=0 "$@" & first=$!
SLURM_PROCID=1 SLURM_NODEID=1 "$@" & second=$!
wait ${first} && wait ${second}
"""


def test_two_nodes_by_espnets_launcher(training: Training, curves: dict) -> None:
    # stand-ins for Slurm's programs start both nodes here; all else is what ESPnet's launcher makes of --num_nodes 2
    programs = training.folder / "bin"
    programs.mkdir()
    for name, text in (("slurm.pl", SLURM), ("srun", SRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    python = [sys.executable, "-m", "espnet_gmot", "-m"]
    command = [*python, "espnet2.bin.launch", "--cmd", "slurm.pl --name nodes", "--log", "nodes.log"]
    command += ["--ngpu", "0", "--num_nodes", "2", "--init_file_prefix", f"{training.folder}/.dist_init_", "--"]
    command += [*python, "espnet2.bin.asr_train", *training.options("nodes", CASES["ctc"])]
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, cwd=training.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_close(training.curve("nodes"), curves["ctc", 2])


def test_a_launched_module_leaves_the_process_group(tmp_path: Path) -> None:
    """ESPnet ends inside it, and such a process was seen to abort after its work: a finished training that failed."""
    (tmp_path / "grouped.py").write_text(
        "import atexit, torch.distributed as dist\n"
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/store', rank=0, world_size=1)\n"
        "atexit.register(lambda: print('inside' if dist.is_initialized() else 'left'))\n"
    )
    command = [sys.executable, "-m", "espnet_gmot", "-m", "grouped"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr

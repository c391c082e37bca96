"""Trainings of a tiny model by ESPnet's own trainer, through the launcher, as users start them."""

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import torch
import yaml

from espnet_gmot import launcher
from tests.hosts.conftest import ENCODERS, HOSTS, TOKENS

ROOT = Path(launcher.__file__).parents[1]
CHARACTERS = TOKENS[2:-1]
BATCH, EPOCHS = 7, 4  # two batches an epoch, which two processes share as 4 and 3 utterances
Curve = dict[int, dict[str, float]]


class Training:
    """A corpus, and ESPnet's trainings on it in forks of one process that has imported ESPnet.

    Args:
        folder: an empty folder for the corpus and the experiments.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, count in (("train", 2 * BATCH), ("valid", BATCH)):
            _write_corpus(folder / name, count)
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(["espnet2.bin.asr_train", "espnet_gmot.hosts.model"])

    def options(self, name: str, config: dict[str, Any], *, ngpu: int = 0, archive: bool = True) -> list[str]:
        """asr_train's options for an experiment; without `archive` the teacher has to run beside it."""
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump({**_CONFIG, **config}))
        words = ["--config", f"{self.folder}/{name}.yaml", "--output_dir", f"{self.folder}/{name}", "--ngpu", str(ngpu)]
        streams = ["feats.scp,speech,kaldi_ark", "text,text,text", "teacher.scp,teacher,kaldi_ark"][: 2 + archive]
        for split in ("train", "valid"):
            for stream in streams:
                words += [f"--{split}_data_path_and_name_and_type", f"{self.folder}/{split}/{stream}"]
            words += [f"--{split}_shape_file", f"{self.folder}/{split}/shape"]
        return words

    def run(
        self, name: str, config: dict[str, Any], *, world: int = 1, dies: tuple[int, int] = (-1, 0), **more: Any
    ) -> list[int]:
        """Train, resuming what is there already.

        Args:
            name: of the experiment.
            config: the configuration.
            world: processes.
            dies: a rank, and the step in which it kills itself.
            more: further options of the configuration.

        Returns:
            The exit codes.
        """
        words = self.options(name, {**config, **more})
        store = f"file://{self.folder}/{name}.store{len(list(self.folder.glob(f'{name}.store*')))}"
        ranks = []
        for rank in range(world):
            own = ["--dist_world_size", str(world), "--dist_rank", str(rank), "--dist_init_method", store]
            step = dies[1] if rank == dies[0] else 0
            log = self.folder / f"{name}.{rank}.log"
            ranks.append((_train, [*words, *(own if world > 1 else [])], step, log))
        return self.forks(ranks)

    def forks(self, calls: Sequence[tuple[Any, ...]], seconds: float = 120) -> list[int]:
        """Call functions with their arguments, each in a fork of its own.

        Returns:
            The exit codes, -9 for those that had to be ended because they took too long.
        """
        forks = [self._forks.Process(target=function, args=arguments) for function, *arguments in calls]
        for fork in forks:
            fork.start()
        for fork in forks:
            fork.join(seconds)
        for fork in forks:
            if fork.is_alive():
                fork.kill()
                fork.join()
        return [fork.exitcode for fork in forks]

    def checkpoint(self, name: str) -> dict[str, Any]:
        """What ESPnet saved last."""
        return torch.load(self.folder / name / "checkpoint.pth", weights_only=False)

    def curve(self, name: str) -> Curve:
        """The losses of every epoch, as ESPnet reports them."""
        stats = self.checkpoint(name)["reporter"]["stats"]
        return {
            epoch: {
                f"{split} {key}": value
                for split in ("train", "valid")
                for key, value in phases[split].items()
                if key.startswith("loss") and np.isfinite(value)  # ESPnet reports what a model hasn't as nan
            }
            for epoch, phases in stats.items()
        }


_CONFIG: dict[str, Any] = {
    "token_list": TOKENS,
    "token_type": "char",
    "use_preprocessor": True,
    "input_size": 8,
    "normalize": None,
    "model": "gmot",
    "encoder": "e_branchformer",
    "encoder_conf": ENCODERS["e_branchformer"],
    **HOSTS["ctc"],
    "allow_variable_data_keys": True,
    "unused_parameters": False,
    "optim": "adam",
    "optim_conf": {"lr": 0.01},
    "batch_type": "unsorted",
    "batch_size": BATCH,
    "max_epoch": EPOCHS,
    "resume": True,
    "dist_backend": "gloo",
    "num_workers": 0,
    "num_att_plot": 0,
    "use_matplotlib": False,
    "use_tensorboard": False,
    "keep_nbest_models": EPOCHS,
    "best_model_criterion": [["valid", "loss", "min"]],
}


def _write_corpus(folder: Path, count: int) -> None:
    """Utterances whose characters are four frames each, but for one that is shorter than its text."""
    folder.mkdir()
    random = np.random.default_rng(count)
    sounds, meanings = np.random.default_rng(0).standard_normal((2, len(CHARACTERS), 12)).astype(np.float32)
    texts, speech, teacher = {}, {}, {}
    for index in range(count):
        # the first two of a batch are its longest: both ranks pad as one process does, and convolutions see padding
        length = 6 if index % BATCH < 2 else 1 + index % 5
        characters = random.integers(0, len(CHARACTERS), length)
        frames = sounds[characters].repeat(4, 0)[:, :8] + 0.3 * random.standard_normal((4 * length, 8))
        key = f"utterance{index:02}"
        texts[key] = "".join(CHARACTERS[character] for character in characters)
        speech[key] = frames[: 2 if index % BATCH == 3 else None].astype(np.float32)
        teacher[key] = meanings[characters] + 2  # off centre, as a PLM's are
    for name, matrices in (("feats", speech), ("teacher", teacher)):
        kaldiio.save_ark(f"{folder}/{name}.ark", matrices, scp=f"{folder}/{name}.scp")
    (folder / "text").write_text("".join(f"{key} {text}\n" for key, text in texts.items()))
    (folder / "shape").write_text("".join(f"{key} {len(frames)},8\n" for key, frames in speech.items()))


def _train(words: list[str], dies: int, log: Path) -> None:
    """``python3 -m espnet_gmot -m espnet2.bin.asr_train WORDS`` in this process."""
    begin(log)
    if dies:
        _kill_in_step(dies)
    sys.exit(launcher.main(["-m", "espnet2.bin.asr_train", *words]))


def begin(log: Path) -> None:
    """One thread, and everything that is printed into a log."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # for data loaders, as in a process that nobody forked
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _kill_in_step(step: int) -> None:
    """End this process without a word in the middle of a training step."""
    from espnet_gmot.loss import GMOTLoss

    steps = itertools.count(1)

    def kill(module: torch.nn.Module, *_: object) -> None:
        if isinstance(module, GMOTLoss) and module.training and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.nn.modules.module.register_module_forward_pre_hook(kill)

"""One recipe run for all of the engine's tests."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from tests.recipe.corpus import ALPHABET, utterances, write_corpus

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs2/aishell_gmot/asr1"
OFFLINE = ROOT / "tests/security/offline"  # a sitecustomize that lets no process reach a network
COUNTS = {"train": 6, "dev": 2, "test": 2}
CONFIG = """
encoder: conformer
encoder_conf: {output_size: 16, attention_heads: 2, linear_units: 16, num_blocks: 1, input_layer: conv2d,
    rel_pos_type: latest, pos_enc_layer_type: rel_pos, selfattention_layer_type: rel_selfattn, cnn_module_kernel: 7}
model_conf: {ctc_weight: 1.0}
batch_type: folded
batch_size: 4
max_epoch: 1
num_workers: 0
num_att_plot: 0
use_tensorboard: false
optim: adam
optim_conf: {lr: 0.002}
best_model_criterion: [[valid, cer_ctc, min]]
keep_nbest_models: 1
"""
LM_CONFIG = """
lm: seq_rnn
lm_conf: {unit: 8, nlayers: 1}
batch_type: folded
batch_size: 8
max_epoch: 1
num_workers: 0
use_tensorboard: false
best_model_criterion: [[valid, loss, min]]
keep_nbest_models: 1
"""


@dataclass(frozen=True)
class Experiment:
    """Folder of the run and what each case gave."""

    folder: Path
    outcomes: dict[str, dict[str, str | None]]

    def output(self, name: str) -> str:
        """What a case printed; fails if the case failed."""
        assert self.outcomes[name]["error"] is None, self.outcomes[name]
        return self.outcomes[name]["output"]

    def error(self, name: str) -> str:
        """The message of a case that must fail."""
        error = self.outcomes[name]["error"]
        assert error and not error.startswith("UNEXPECTED"), self.outcomes[name]
        return error


def common(**changes: str) -> list[str]:
    """The options of every case."""
    options = {
        "nj": "2",
        "inference_nj": "2",
        "ngpu": "0",
        "lang": "zh",
        "token_type": "char",
        "audio_format": "flac.ark",
        "use_lm": "false",
        "speed_perturb_factors": "0.9 1.0",
        "asr_config": "config.yaml",
        "asr_tag": "tiny",
        "lm_config": "lm.yaml",
        "inference_config": "decode.yaml",
        "inference_asr_model": "valid.cer_ctc.best.pth",
        "train_set": "train",
        "valid_set": "dev",
        "test_sets": "dev test",
        "local_data_opts": "--data data_aishell.tgz",
    }
    return [word for name, value in {**options, **changes}.items() for word in (f"--{name}", value)]


GMOT = (
    "--train_data_path_and_name_and_type teacher_train.scp,teacher,kaldi_ark "
    "--valid_data_path_and_name_and_type teacher_dev.scp,teacher,kaldi_ark "
    "--allow_variable_data_keys true --use_tensorboard true --model gmot --model_conf gmot_conf.preset=gmot "
    "--model_conf gmot_conf.teacher_width=6 --model_conf gmot_conf.backend=torch --keep_nbest_models 2"
)
CASES = [
    {"name": "all", "argv": common(skip_packing="false")},
    {"name": "again", "argv": common()},
    {"name": "more", "argv": common(stage="11", stop_stage="12", asr_args="--max_epoch 2")},
    {"name": "misspelt_espnet", "argv": common(stage="10", stop_stage="10", asr_args="--max_epohc 2")},
    {
        "name": "misspelt_gmot",
        "argv": common(stage="11", asr_tag="bad", asr_args="--model gmot --model_conf gmot_conf.alhpa=0.5"),
    },
    {"name": "gmot", "argv": common(stage="10", stop_stage="13", asr_tag="gmot", asr_args=GMOT)},
    {
        "name": "gmot_resumed",
        "argv": common(stage="11", stop_stage="11", asr_tag="gmot", asr_args=f"{GMOT} --max_epoch 2"),
    },
    {"name": "gmot_packed", "argv": common(stage="14", asr_tag="gmot", skip_packing="false")},
    {"name": "word", "argv": common(stage="5", stop_stage="5", token_type="word")},
    {"name": "other_tokens", "argv": common(stage="11", token_type="word")},
    {"name": "other_config", "argv": common(stage="11", asr_args="--max_epoch 3 --encoder_conf linear_units=24")},
    {"name": "no_gpu", "argv": common(stage="11", asr_tag="gpu", ngpu="64")},
    {"name": "no_model", "argv": common(stage="12", inference_asr_model="valid.acc.best.pth")},
    {
        "name": "bpe_lm",
        "argv": common(
            stage="4",
            stop_stage="13",
            asr_tag="bpe",
            token_type="bpe",
            nbpe="12",
            use_lm="true",
            inference_lm="valid.loss.best.pth",
            inference_args="--lm_weight 0.3",
        ),
    },
    {"name": "word_trained", "argv": common(stage="5", stop_stage="13", asr_tag="word", token_type="word")},
    {"name": "bpe_too_large", "argv": common(stage="5", stop_stage="5", token_type="bpe", nbpe="5000")},
    {"name": "wav", "argv": common(stage="3", stop_stage="5", audio_format="wav", dumpdir="dump_wav")},
]


def write_teacher(folder: Path) -> None:
    """A stream `teacher` for training (speed-perturbed copies too) and validation: a vector for each character."""
    vectors = np.random.default_rng(1).standard_normal((len(ALPHABET), 6)).astype(np.float32)
    for split, prefixes in (("train", ("", "sp0.9-")), ("dev", ("",))):
        rows = {
            prefix + key: vectors[[ALPHABET.index(character) for character in text]]
            for prefix in prefixes
            for key, (theirs, _, text) in utterances(COUNTS).items()
            if theirs == split
        }
        kaldiio.save_ark(str(folder / f"teacher_{split}.ark"), rows, scp=str(folder / f"teacher_{split}.scp"))


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """All cases on a tiny corpus, in a folder that looks like the recipe's."""
    folder = tmp_path_factory.mktemp("recipe")
    write_corpus(folder, COUNTS)
    write_teacher(folder)
    (folder / "local").symlink_to(RECIPE / "local")
    (folder / "path.sh").symlink_to(RECIPE / "path.sh")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "lm.yaml").write_text(LM_CONFIG)
    (folder / "decode.yaml").write_text("beam_size: 1\nctc_weight: 1.0\n")
    (folder / "cases.json").write_text(json.dumps(CASES))
    env = {name: value for name, value in os.environ.items() if name not in ("AISHELL", "AISHELL_URL", "GMOT_MAX_UTTS")}
    env |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{OFFLINE}:{ROOT}",
        "GMOT_NETWORK_LOG": str(folder / "network.log"),
        "HF_HUB_OFFLINE": "0",  # nothing may rely on it
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "tests.recipe.driver", "cases.json", "outcomes.json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Experiment(folder, json.loads((folder / "outcomes.json").read_text()))

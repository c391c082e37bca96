"""No network without being asked: every stage, the demo's corpus and a teacher, where no socket connects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipe.conftest import OFFLINE, ROOT, Experiment


def blocked(folder: Path, *words: str) -> str:
    """Run Python with every network refused; give its output, and check that it didn't even try."""
    log = folder / "network.log"
    names = [name for name in os.environ if name.startswith(("AISHELL", "GMOT_", "HF_", "TRANSFORMERS_"))]
    env = {name: value for name, value in os.environ.items() if name not in names}
    env |= {"PYTHONPATH": f"{OFFLINE}:{ROOT}", "GMOT_NETWORK_LOG": str(log), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not log.exists(), log.read_text()[:3000]
    return done.stdout


@pytest.mark.espnet
def test_every_stage_runs_without_a_network(experiment: Experiment) -> None:
    """Data, speed, audio, tokens, statistics, training, averaging, decoding, scoring, packing; a language model too."""
    for name in ("all", "gmot", "bpe_lm"):
        experiment.output(name)
    log = experiment.folder / "network.log"
    assert not log.exists(), log.read_text()[:3000]


def test_the_block_blocks_and_tells(tmp_path: Path) -> None:
    code = "import urllib.request as u\ntry:\n u.urlopen('http://localhost:9')\nexcept OSError: pass"
    with pytest.raises(AssertionError, match="localhost"):
        blocked(tmp_path, "-c", code)


def test_corpus_data_and_teacher_without_a_network(tmp_path: Path) -> None:
    module = ("-m", "espnet_gmot")
    sizes = ("--train", "4", "--dev", "2", "--test", "2", "--domain", "20")
    blocked(tmp_path, *module, "demo-corpus", "--out", "corpus", *sizes)
    blocked(tmp_path, *module, "prepare-data", "--data", "corpus/data_aishell.tgz", "--out", "data")
    size = ("--layers", "1", "--width", "16", "--steps", "1")
    blocked(tmp_path, *module, "pretrain-plm", "--text", "corpus/domain_text.txt", "--out", "plm", *size)
    blocked(tmp_path, *module, "dump-teacher", "--model", "plm", "--text", "data/dev/text", "--out", "teacher")
    assert (tmp_path / "teacher/teacher.scp").is_file()

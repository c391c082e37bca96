"""run.sh over a real asr.sh, where ESPNET_ROOT names an ESPnet checkout."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.recipe.conftest import RECIPE
from tests.recipe.corpus import write_corpus


def bash(folder: Path, *words: str, fails: bool = False) -> str:
    """Run a command without ESPNET_ROOT; its output."""
    environment = {key: value for key, value in os.environ.items() if key not in ("ESPNET_ROOT", "AISHELL")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "VIRTUAL_ENV": "tests"}
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert (done.returncode != 0) is fails, done.stdout[-3000:]
    return done.stdout


def test_both_engines_make_the_same_token_list(checkout: str, tmp_path: Path) -> None:
    """Stages 1 to 5 with pieces and speed perturbation; then asr.sh by itself, as it says one can go on."""
    archive = write_corpus(tmp_path, {"train": 8, "dev": 2, "test": 2})
    options = ["--data", str(archive), "--stop_stage", "5", "--nj", "1", "--token_type", "bpe", "--nbpe", "12"]
    options += ["--speed_perturb_factors", "0.9 1.0", "--test_sets", "test"]
    lists = []
    for name, engine in (("shell", ["--espnet_root", checkout]), ("python", [])):
        bash(tmp_path, str(RECIPE / "run.sh"), "--workdir", name, *options, *engine)
        lists.append((tmp_path / name / "data/zh_token_list/bpe_unigram12/tokens.txt").read_text())
    assert lists[0] == lists[1] and lists[0].startswith("<blank>\n<unk>\n")
    sets = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test", "--nj", "1"]
    said = bash(tmp_path / "shell", "./asr.sh", *sets, "--stage", "3", "--stop_stage", "3")
    assert "Successfully finished" in said and "run.pl: " not in said
    text = tmp_path / "shell/data/train_sp/text"
    text.write_text(re.sub(r" (\S)", " \\1\u3000", text.read_text(), count=1))
    command = [str(RECIPE / "run.sh"), "--workdir", "shell", *options, "--espnet_root", checkout]
    command += ["--stage", "3", "--stop_stage", "3"]
    said = bash(tmp_path, *command, fails=True)
    assert "data/train_sp/text: ESPnet misreads 1 of" in said and "Stage 3: " not in said
    bash(tmp_path / "shell", sys.executable, "-m", "espnet_gmot", "check-data", "--tidy", "data/train_sp")
    bash(tmp_path, *command)

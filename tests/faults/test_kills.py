"""kill -9 in every stage of the real recipe on a tiny corpus; what comes out is what an undisturbed run gives."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.hosts.test_frontend import tiny
from tests.recipe.conftest import CONFIG, RECIPE, ROOT, common
from tests.recipe.corpus import write_corpus

pytestmark = [pytest.mark.espnet, pytest.mark.faults]
COUNTS = {"train": 6, "dev": 2, "test": 2}
TRAINED = {"max_epoch": 3, "keep_nbest_models": 2}
STREAMS = [
    f"--{split}_data_path_and_name_and_type dump/raw/{name}/teacher/teacher.scp,teacher,kaldi_ark"
    for split, name in (("train", "train_sp"), ("valid", "dev"))
]
GMOT = [*STREAMS, "--allow_variable_data_keys true --model gmot --model_conf gmot_conf.preset=gmot"]
OPTIONS = common(
    asr_args=" ".join([*GMOT, "--model_conf gmot_conf.teacher_width=16 --model_conf gmot_conf.backend=torch"]),
    inference_asr_model="valid.cer_ctc.ave.pth",
)
PLM = shlex.split("--text_format kaldi --layers 1 --width 16 --heads 2 --steps 4 --batch_size 4 --save_seconds 0")
TEACHER = ["dump-teacher", "--model", "plm", "--precision", "int8", "--normalise", "centre"]
STEPS: dict[str, list[str]] = {
    "data": ["recipe", *OPTIONS, "--stage", "1", "--stop_stage", "5"],
    "frontend": ["dump-frontend", "--model", "whisper", "--wav_scp", "data/dev/wav.scp", "--out", "dump/frontend"],
    "plm": ["pretrain-plm", "--out", "plm", "--text", "data/train/text", *PLM],
    "teacher": [*TEACHER, "--text", "dump/raw/train_sp/text", "--out", "dump/raw/train_sp/teacher"],
    "teacher_dev": [*TEACHER, "--text", "dump/raw/dev/text", "--out", "dump/raw/dev/teacher"],
    "espnet": ["recipe", *OPTIONS, "--stage", "10", "--stop_stage", "13"],
    "export": ["export", "exp/asr_tiny", "--out", "stock"],
}
#: Where to kill: a step, and an event of it.
KILLS: list[tuple[str, str]] = [
    ("data", "os.rename:1:wav"),
    ("data", "os.rename:3:data/train"),
    ("data", "os.rename:2:dump/raw/org/train_sp"),
    ("data", "os.rename:1:dump/raw/dev/"),
    ("data", "os.rename:1:tokens.txt"),
    ("frontend", "os.rename:1:feats.0.ark"),
    ("frontend", "os.rename:1:feats.scp"),
    ("plm", "os.rename:3:checkpoint.pt"),
    ("plm", "os.rename:1:plm/model.safetensors"),
    ("teacher", "open:1:teacher.0.ark"),
    ("teacher", "os.rename:1:teacher.json"),
    ("espnet", "open:1:stats.1/train/speech_shape"),
    ("espnet", "os.rename:2:exp/asr_stats_raw_zh_char_sp/train"),
    ("espnet", "open:1:exp/asr_tiny/config.yaml"),
    ("espnet", "open:1:[.]checkpoint.pth"),
    ("espnet", "os.rename:1:asr_tiny/checkpoint.pth'"),
    ("espnet", "os.rename:1:asr_tiny/2epoch.pth'"),
    ("espnet", "os.symlink:1:latest.pth"),
    ("espnet", "open:1:ave_2best"),
    ("espnet", "open:1:1best_recog/text"),
    ("espnet", "os.rename:1:decode_.*test/text"),
    ("espnet", "os.rename:1:result.txt"),
    ("espnet", "os.rename:1:RESULTS.md"),
    ("export", "os.rename:1:stock"),
]
#: Differ between any two runs, or tell of the runs themselves.
INCIDENTAL = re.compile(
    r"\.log$|data_aishell\.tgz$|/feats\.0\.json$|/images/|\.lock$|/run\.sh$|checkpoint\.pth\.bak$|RESULTS\.md$|/keys\.|/tensorboard/"
)


def begin(folder: Path) -> Path:
    """A folder like the recipe's, with the corpus in it."""
    folder.mkdir()
    write_corpus(folder, COUNTS)
    for name in ("local", "path.sh"):
        (folder / name).symlink_to(RECIPE / name)
    (folder / "config.yaml").write_text(yaml.safe_dump({**yaml.safe_load(CONFIG), **TRAINED}))
    (folder / "decode.yaml").write_text("beam_size: 1\nctc_weight: 1.0\n")
    tiny("whisper", folder / "whisper")
    return folder


def files(folder: Path) -> dict[str, Path]:
    """What a run left, by relative path."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    return {name: path for name, path in found.items() if not INCIDENTAL.search(name)}


def content(path: Path, root: Path) -> object:
    """What can be compared of a file below a folder: a model's parameters, text and bytes but for the folder's name."""
    if path.suffix == ".pth":
        state = torch.load(path, weights_only=False)
        state = state.get("model", state)
        return {name: value.tolist() for name, value in state.items()}
    if path.is_symlink():
        return os.readlink(path)
    if path.suffix in (".yaml", ".npz", ".zip", ".complete") or path.name.endswith(".complete"):
        return None  # file names and times in them
    return path.read_bytes().replace(str(root).encode(), b"")


def test_a_kill_in_any_stage_leaves_no_trace(tmp_path: Path) -> None:
    calm, killed = begin(tmp_path / "calm"), begin(tmp_path / "killed")
    runs = [{"folder": str(calm), "words": words, "kill": ""} for words in STEPS.values()]
    for name, words in STEPS.items():
        kills = [kill for step, kill in KILLS if step == name]
        runs += [{"folder": str(killed), "words": words, "kill": kill} for kill in [*kills, ""]]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AISHELL", "GMOT_"))}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    command = [sys.executable, "-m", "tests.faults.driver", "runs.json", "outcomes.json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())
    for run, (status, output) in zip(runs, outcomes, strict=False):
        assert status == (-signal.SIGKILL if run["kill"] else 0), (run, status, output)
    assert len(outcomes) == len(runs)
    there, wanted = files(killed), files(calm)
    assert there.keys() == wanted.keys()
    different = [name for name, path in wanted.items() if content(path, calm) != content(there[name], killed)]
    assert not different, different
    rates = list(calm.rglob("result.txt"))
    assert rates and all("Sum/Avg" in path.read_text() for path in rates)

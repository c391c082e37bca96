"""kill -9 in every stage of the real recipe on a tiny corpus; what comes out is what an undisturbed run gives."""

import csv
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
from tests.recipe.conftest import CONFIG, LM_CONFIG, RECIPE, ROOT, common
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
COMPARED = shlex.split("--workdir . --systems tiny=config.yaml --stage 11 --inference_config decode.yaml --jobs 1")
COMPARED += ["--seeds", "3 4", "--speed_perturb_factors", "0.9 1.0", "--test_sets", "test"]
COMPARED += ["--inference_asr_model", "valid.cer_ctc.best.pth"]
PLM = shlex.split("--text_format kaldi --layers 1 --width 16 --heads 2 --steps 4 --batch_size 4 --save_seconds 0")
TEACHER = ["dump-teacher", "--model", "plm", "--precision", "int8", "--normalise", "centre"]
STEPS: dict[str, list[str]] = {
    "data": ["recipe", *OPTIONS, "--stage", "1", "--stop_stage", "5"],
    "frontend": ["dump-frontend", "--model", "whisper", "--wav_scp", "data/dev/wav.scp", "--out", "dump/frontend"],
    "plm": ["pretrain-plm", "--out", "plm", "--text", "data/train/text", *PLM],
    "teacher": [*TEACHER, "--text", "dump/raw/train_sp/text", "--out", "dump/raw/train_sp/teacher"],
    "teacher_dev": [*TEACHER, "--text", "dump/raw/dev/text", "--out", "dump/raw/dev/teacher"],
    "lm": ["recipe", *OPTIONS, "--use_lm", "true", "--stage", "6", "--stop_stage", "8"],
    "stats": ["recipe", *OPTIONS, "--stage", "10", "--stop_stage", "10"],
    "compare": [str(RECIPE / "run_comparison.sh"), *COMPARED],
    "final": [str(RECIPE / "run_comparison.sh"), *COMPARED, "--final"],
    "espnet": ["recipe", *OPTIONS, "--stage", "11", "--stop_stage", "13"],
    "export": ["export", "exp/asr_tiny", "--out", "stock"],
    "pack": ["recipe", *OPTIONS, "--skip_packing", "false", "--stage", "14"],
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
    ("lm", "open:1:lm_stats.*text_shape"),
    ("lm", "open:1:[.]checkpoint.pth"),
    ("lm", "os.rename:1:1epoch.pth'"),
    ("lm", "open:1:perplexity_test/ppl'"),
    ("stats", "open:1:stats.1/train/speech_shape"),
    ("stats", "os.rename:2:exp/asr_stats_raw_zh_char_sp/train"),
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
    ("pack", "exists:1:exp/asr_tiny/*.zip*"),
    ("compare", "exists:1:exp/asr_tiny_seed3/checkpoint.pth"),
    ("compare", "exists:1:exp/asr_tiny_seed3/2epoch.pth"),
    ("compare", "exists:1:exp/asr_tiny_seed3/decode*/org/dev/text"),
    ("compare", "exists:1:results.csv"),
    ("compare", "exists:1:exp/asr_tiny_seed4/config.yaml"),
    ("final", "exists:1:exp/asr_tiny_seed4/decode*/test/logdir"),
]
#: Columns of a comparison's results that are measured anew.
MEASURED = {"date", "hours", "cpu_hours", "max_rss_gb"}
#: Differ between any two runs, or tell of the runs themselves.
INCIDENTAL = re.compile(
    r"\.log$|data_aishell\.tgz$|/feats\.0\.json$|/images/|\.lock$|/run\.sh$|checkpoint\.pth\.bak$|RESULTS\.md$|/keys\.|/tensorboard/"
)


#: Of asr.sh, whose stages are programs of many kinds: where to kill, by the stages of a call.
SHELL_KILLS: dict[str, tuple[str, ...]] = {
    "1 5": (
        "exists:1:data/train/wav.scp",
        "exists:1:dump/raw/org/train/wav.scp",
        "exists:1:dump/raw/dev/text",
        "exists:1:data/zh_token_list/char/tokens.txt",
    ),
    "10 10": (
        "exists:1:exp/asr_stats*/logdir/stats.1/train/speech_shape",
        "exists:1:exp/asr_stats*/train/feats_stats.npz",
    ),
    "11 11": (
        "exists:1:exp/asr_tiny/config.yaml",
        "exists:1:exp/asr_tiny/checkpoint.pth",
        "exists:1:exp/asr_tiny/2epoch.pth",
        "exists:1:exp/asr_tiny/*ave_2best.pth",
    ),
    "12 13": (
        "exists:1:exp/asr_tiny/decode*/test/logdir/output.1/1best_recog/text",
        "exists:1:exp/asr_tiny/decode*/test/score_cer/result.txt",
    ),
}


def begin(folder: Path) -> Path:
    """A folder like the recipe's, with the corpus in it."""
    folder.mkdir()
    write_corpus(folder, COUNTS)
    for name in ("local", "path.sh"):
        (folder / name).symlink_to(RECIPE / name)
    (folder / "config.yaml").write_text(yaml.safe_dump({**yaml.safe_load(CONFIG), **TRAINED}))
    (folder / "lm.yaml").write_text(LM_CONFIG)
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
    if path.name == "comparison.json":
        return re.sub(r'"(cpu_seconds|max_rss_gb|date)": .*', "", path.read_text())
    if path.name == "results.csv":
        with path.open(newline="") as lines:
            return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(lines)]
    return path.read_bytes().replace(str(root).encode(), b"")


def outcomes_of(runs: list[dict], folder: Path) -> None:
    """Do the runs; each that must not be killed succeeds."""
    (folder / "runs.json").write_text(json.dumps(runs))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AISHELL", "GMOT_"))}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    command = [sys.executable, "-m", "tests.faults.driver", "runs.json", "outcomes.json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads((folder / "outcomes.json").read_text())
    for run, (status, output) in zip(runs, outcomes, strict=False):
        assert status == (-signal.SIGKILL if run["kill"] else 0), (run, status, output)
    assert len(outcomes) == len(runs)


def assert_same(calm: Path, killed: Path) -> None:
    """The same files with the same content, error rates among them."""
    there, wanted = files(killed), files(calm)
    assert there.keys() == wanted.keys()
    different = [name for name, path in wanted.items() if content(path, calm) != content(there[name], killed)]
    assert not different, different
    rates = list(calm.rglob("result.txt"))
    assert rates and all("Sum/Avg" in path.read_text() for path in rates)


def test_a_kill_in_any_stage_leaves_no_trace(tmp_path: Path) -> None:
    calm, killed = begin(tmp_path / "calm"), begin(tmp_path / "killed")
    runs = [{"folder": str(calm), "words": words, "kill": ""} for words in STEPS.values()]
    for name, words in STEPS.items():
        kills = [kill for step, kill in KILLS if step == name]
        runs += [{"folder": str(killed), "words": words, "kill": kill} for kill in [*kills, ""]]
    outcomes_of(runs, tmp_path)
    assert_same(calm, killed)


def test_a_kill_in_any_stage_of_asr_sh_leaves_no_trace(checkout: str, tmp_path: Path) -> None:
    calm, killed = begin(tmp_path / "calm"), begin(tmp_path / "killed")
    words = [str(RECIPE / "run.sh"), "--workdir", ".", "--espnet_root", checkout, "--data", "data_aishell.tgz"]
    # no speed perturbation: asr.sh's is sox, which dithers at random, so that no two runs are the same
    words += common(nj="1", inference_nj="1", speed_perturb_factors="")
    runs = []
    for stages, kills in SHELL_KILLS.items():
        begins, ends = stages.split()
        call = [*words, "--stage", begins, "--stop_stage", ends]
        runs += [{"folder": str(calm), "words": call, "kill": ""}]
        runs += [{"folder": str(killed), "words": call, "kill": kill} for kill in [*kills, ""]]
    outcomes_of(runs, tmp_path)
    assert_same(calm, killed)

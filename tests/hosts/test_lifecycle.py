"""What a model of every host goes through: ESPnet's training, ESPnet's decoding, export, stock ESPnet's decoding."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from espnet_gmot.doctor.software import _module_exists
from tests.hosts.conftest import ENCODERS, HOSTS
from tests.hosts.training import BATCH, Training

pytestmark = [pytest.mark.espnet, pytest.mark.matrix]

_DRIVER = """
import json, sys
from espnet_gmot import launcher
for words in json.loads(sys.argv[1]):
    if status := launcher.main(words):
        sys.exit(status)
"""
GMOT = {"teacher_width": 12, "backend": "torch"}
CASES: dict[str, dict[str, Any]] = {
    "ctc": {"model_conf": {"ctc_weight": 1.0, "gmot_conf": {**GMOT, "residual": True}}},
    "hybrid": {**HOSTS["hybrid"], "encoder": "conformer", "encoder_conf": ENCODERS["conformer"]},
    "transducer": {**HOSTS["transducer"], "encoder": "transformer", "encoder_conf": ENCODERS["transformer"]},
}


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(tmp_path_factory.mktemp("lifecycle"))


def finished(training: Training, commands: list[list[str]]) -> str:
    """Run commands of ``python3 -m espnet_gmot``, which must succeed, and return what they printed.

    One process runs them all: importing ESPnet is the slow part.
    """
    # ESPnet's transducer asks for warprnnt_pytorch, which PyPI doesn't have: its own numba loss has the same interface
    (training.folder / "warprnnt_pytorch.py").write_text(
        "from espnet2.asr.transducer.rnnt_multi_blank.rnnt_multi_blank import RNNTLossNumba as RNNTLoss\n"
    )
    driver = training.folder / "driver.py"
    driver.write_text(_DRIVER)
    command = [sys.executable, str(driver), json.dumps(commands)]
    path = os.pathsep.join([str(training.folder), *filter(None, [os.environ.get("PYTHONPATH")])])  # for export's too
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=training.folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def decoding(training: Training, name: str, stream: str, ngpu: int = 0) -> list[str]:
    """ESPnet's asr_inference on the validation set."""
    experiment = training.folder / name
    options = {
        "asr_train_config": experiment / "config.yaml",
        "asr_model_file": experiment / "valid.loss.best.pth",
        "data_path_and_name_and_type": f"{training.folder}/valid/{stream}",
        "key_file": training.folder / "valid/text",
        "output_dir": experiment / "decoded",
        "beam_size": 2,
        "ctc_weight": 0.0 if name == "transducer" else 1.0 if name in ("ctc", "whisper") else 0.3,
        "ngpu": ngpu,
    }
    return ["-m", "espnet2.bin.asr_inference", *(str(word) for k, v in options.items() for word in (f"--{k}", v))]


def hypotheses(training: Training, name: str) -> int:
    """How many utterances were decoded."""
    return len((training.folder / name / "decoded/1best_recog/text").read_text(encoding="utf8").splitlines())


@pytest.mark.parametrize("name", CASES)
def test_train_decode_export(training: Training, tiny_plm: Path, name: str) -> None:
    if name == "transducer" and not _module_exists("espnet2.asr.transducer.rnnt_multi_blank.rnnt_multi_blank"):
        pytest.skip("this ESPnet has no transducer loss of its own, and PyPI no warprnnt_pytorch")
    config, online = dict(CASES[name]), name == "hybrid"
    if online:  # the teacher runs beside the training
        gmot = {**GMOT, "teacher": str(tiny_plm), "teacher_layer": 1, "residual": True}
        config["model_conf"] = {**config["model_conf"], "gmot_conf": gmot}
    elif name == "transducer":
        config["model_conf"] = {**config["model_conf"], "gmot_conf": GMOT}
    words = training.options(name, {**config, "max_epoch": 2}, archive=not online)
    out = training.folder / f"{name}_stock"
    export = ["export", str(training.folder / name), "--model_file", "valid.loss.best.pth", "--out", str(out), "--zip"]
    train = ["-m", "espnet2.bin.asr_train", *words]
    said = finished(training, [train, decoding(training, name, "feats.scp,speech,kaldi_ark"), export])
    curve = training.curve(name)
    assert len(curve) == 2 and {"train loss", "train loss_gmot"} <= curve[2].keys(), curve
    assert hypotheses(training, name) == BATCH
    assert "as the original does" in said and len(list(out.glob("*.zip"))) == 1


def test_a_speech_encoder_as_the_frontend(training: Training, tmp_path: Path) -> None:
    from tests.hosts.test_frontend import tiny

    soundfile = pytest.importorskip("soundfile")
    model = tiny("whisper", tmp_path / "whisper")
    for split in ("train", "valid"):
        keys = [line.split()[0] for line in (training.folder / split / "shape").read_text().splitlines()]
        for key in keys:
            noise = 0.1 * np.random.default_rng(len(key)).standard_normal(8000)
            soundfile.write(training.folder / split / f"{key}.wav", noise, 16000)
        folder = training.folder / split
        (folder / "wav.scp").write_text("".join(f"{key} {folder}/{key}.wav\n" for key in keys))
    config = {
        "input_size": None,
        "frontend": "hf_speech",
        "frontend_conf": {"model": model, "fs": "16k"},
        "model_conf": {"ctc_weight": 1.0, "gmot_conf": GMOT},
        "max_epoch": 1,
    }
    words = [
        word.replace("feats.scp,speech,kaldi_ark", "wav.scp,speech,sound")
        for word in training.options("whisper", config)
    ]
    train = ["-m", "espnet2.bin.asr_train", *words]
    finished(training, [train, decoding(training, "whisper", "wav.scp,speech,sound")])
    assert hypotheses(training, "whisper") == BATCH

"""The examples without ESPnet run where torch, numpy and matplotlib are all there is, and learn."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LIBRARY = EXAMPLES / "library"

#: Runs main() of every example in a process where importing anything else fails, and prints what they return.
ALONE = """
import importlib, json, sys
absent = "espnet espnet2 espnetez speechbrain icefall k2 lhotse transformers numba ot scipy kaldiio yaml"
sys.modules.update(dict.fromkeys(absent.split()))
sys.path.insert(0, sys.argv[1])
examples = [word.split("=") for word in sys.argv[2:]]
print(json.dumps({name: importlib.import_module(name).main(*words) for name, *words in examples}))
"""


@pytest.fixture(scope="module")
def returned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What main() of each example returns, by the file's name; "plan" is where one has drawn."""
    picture = tmp_path_factory.mktemp("library") / "plan.png"
    names = sorted({path.stem for path in LIBRARY.glob("*.py")} - {"small_ctc"})
    words = [f"{name}={picture}" if name == "align_sequences" else name for name in names]
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(LIBRARY), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "plan": picture}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_every_example_is_tested_here(returned: dict[str, Any]) -> None:
    told = Path(__file__).read_text(encoding="utf8")
    assert len(returned) >= 5 and all(f'returned["{name}"]' in told for name in returned)


def test_plain_pytorch(returned: dict[str, Any]) -> None:
    history, right = returned["plain_pytorch"]
    assert mean(history["ctc"][-4:]) < 0.15 * history["ctc"][0]
    for part in ("loss_wd", "loss_gwd", "loss_align"):  # the transfer is learnt, not only added
        assert mean(history[part][-4:]) < 0.5 * history[part][0], part
    assert right > 0.5  # of sentences never seen, without the teacher


def test_speechbrain(returned: dict[str, Any]) -> None:
    losses = returned["speechbrain_brain"]
    assert mean(losses[-5:-1]) < 0.2 * losses[0] and losses[-1] < 1.0


def test_icefall(returned: dict[str, Any]) -> None:
    logged = returned["icefall_step"]
    share = [step["gmot_loss"] / step["frames"] for step in logged[:-1]]
    assert mean(share[-4:]) < 0.5 * share[0]
    assert logged[-1]["gmot_loss"] == 0 and logged[-1]["loss"] == logged[-1]["ctc_loss"]  # validation has no teacher


def test_icefall_sums_like_icefall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the utterances give twice the loss, the transfer's as well."""
    monkeypatch.syspath_prepend(str(LIBRARY))
    spec = importlib.util.spec_from_file_location("icefall_step", LIBRARY / "icefall_step.py")
    assert spec is not None and spec.loader is not None
    step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(step)
    encoder = step.Encoder()
    gmot = step.GMOTLoss(step.GMOTConfig(teacher_width=step.tones.WIDTH, centre=False, backend="torch"), encoder.width)
    model = step.AsrModel(encoder, encoder.width, len(step.tones.TOKENS), gmot).eval()
    params, text = step.SimpleNamespace(ctc_loss_scale=1.0, gmot_loss_scale=1.0), "今天天气"
    losses = [
        step.compute_loss(params, model, step.teacher, step.lhotse_batch([text] * count), True)[1] for count in (1, 2)
    ]
    assert losses[1]["gmot_loss"] == pytest.approx(2 * losses[0]["gmot_loss"], rel=1e-4) and losses[0]["gmot_loss"] > 0
    assert losses[1]["ctc_loss"] == pytest.approx(2 * losses[0]["ctc_loss"], rel=1e-4)


def test_align_sequences(returned: dict[str, Any]) -> None:
    order, truth = returned["align_sequences"]
    assert order == truth != sorted(truth)
    assert returned["plan"].read_bytes()[:4] == b"\x89PNG"


def notebook(name: str, cwd: Path) -> tuple[int, str]:
    """Exit code and output of a notebook as a script; pictures go nowhere."""
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / "notebooks" / name)]
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(EXAMPLES.parent), "GMOT_DEMO": str(cwd)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_notebook_alpha(tmp_path: Path) -> None:
    status, said = notebook("alpha.py", tmp_path)
    assert status == 0, said
    shares = [float(share) for share in re.findall(r"alpha [\d.]+: ([\d.]+) of the mass in place", said)]
    assert len(shares) == 6 and shares[0] < 0.75 < 0.8 < min(shares[1:])  # edges break the tie
    mirrored = re.search(r"forwards ([\d.]+), backwards ([\d.]+)", said)
    assert mirrored and mirrored[1] == mirrored[2]


def test_notebook_demo_model_says_what_is_missing(tmp_path: Path) -> None:
    status, said = notebook("demo_model.py", tmp_path)
    assert status == 1 and "run `make demo` first" in said  # tests/hosts/test_observe.py runs it on a trained model


def test_notebooks_are_in_percent_format() -> None:
    notebooks = sorted((EXAMPLES / "notebooks").glob("*.py"))
    assert [path.name for path in notebooks] == ["alpha.py", "demo_model.py"]
    for path in notebooks:
        text = path.read_text(encoding="utf8")
        assert (
            text.startswith("# ---\n# jupyter:\n") and text.count("# %% [markdown]") >= 4 and text.count("# %%\n") >= 4
        )

"""What the plugin costs where nobody trains with it: `python3 benchmarks/plugin_cost.py --out docs/plugin_cost.json`.

- decoding: CPU time of the same parameters, once as ESPnet trains and saves them without the plugin, once as
  ``export`` leaves a gmot experiment, once as that experiment itself, and once more as the first, which shows the
  noise; utterance by utterance, in rotating order.
- checkpoint: bytes of the three files beside the adapter's.
- import: CPU time that registration adds to a process which has imported ESPnet's ASR task, each time in a new process.

The model is the E-Branchformer of conf/train_asr_ctc_e_branchformer_e12*.yaml with AISHELL-1's number of tokens and
random parameters; the utterances are noise.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from provenance import provenance
from training_step import ROOT, TOKENS

CONFIG = "train_asr_ctc_e_branchformer_e12"
IMPORT = """
import time, espnet2.tasks.asr as task
assert "gmot" not in task.model_choices.classes
start, before = time.process_time(), time.perf_counter()
import espnet_gmot.launcher
print(time.process_time() - start, time.perf_counter() - before)
assert "gmot" in task.model_choices.classes
"""


def experiment(folder: Path, name: str, state: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Leave an untrained experiment as ESPnet does: its configuration and its parameters.

    Args:
        folder: where.
        name: configuration in conf/.
        state: parameters to take over, as far as they are given.

    Returns:
        The parameters.
    """
    from espnet2.tasks.asr import ASRTask
    from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump

    config: dict[str, Any] = yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text(encoding="utf8"))
    if "gmot_conf" in config["model_conf"]:
        config["model_conf"]["gmot_conf"]["teacher_width"] = 768  # bert-base-chinese
    config |= {"token_list": TOKENS, "token_type": "char", "normalize": "utterance_mvn", "output_dir": str(folder)}
    folder.mkdir()
    (folder / "train.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf8")
    args = ASRTask.get_parser().parse_args(["--config", str(folder / "train.yaml")])
    torch.manual_seed(0)
    model = ASRTask.build_model(args)
    if state is not None:
        model.load_state_dict(state, strict=False)
    (folder / "config.yaml").write_text(yaml_no_alias_safe_dump(vars(args)), encoding="utf8")
    torch.save(model.state_dict(), folder / "model.pth")
    return model.state_dict()


def experiments(work: Path) -> dict[str, Path]:
    """The stock experiment, a gmot one with the same encoder, and what ``export`` makes of that."""
    from espnet2.tasks.asr import model_choices

    assert "gmot" not in model_choices.classes  # the stock experiment knows nothing of the plugin
    state = experiment(work / "stock", CONFIG)
    from espnet_gmot.hosts import export
    from espnet_gmot.hosts.register import register

    register()
    experiment(work / "gmot", f"{CONFIG}_gmot", state)
    with contextlib.redirect_stdout(sys.stderr):
        exported = export.export(work / "gmot", work / "exported", "model.pth")
    os.replace(exported.config, work / "exported" / "config.yaml")
    return {name: work / name for name in ("stock", "exported", "gmot")}


def decoding(folders: dict[str, Path], rounds: int, seconds: float) -> dict[str, Any]:
    """Median CPU seconds of an utterance's decoding, and median ratios to stock."""
    from espnet2.asr.espnet_model import ESPnetASRModel
    from espnet2.bin.asr_inference import Speech2Text

    options = yaml.safe_load((ROOT / "conf/decode_ctc_greedy.yaml").read_text(encoding="utf8"))
    folders = {**folders, "stock again": folders["stock"]}
    systems = {name: Speech2Text(path / "config.yaml", path / "model.pth", **options) for name, path in folders.items()}
    assert type(systems["exported"].asr_model) is ESPnetASRModel
    generator = torch.Generator().manual_seed(1)
    spent: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(-1, rounds):  # the first one warms up
        speech = 0.1 * torch.randn(int(16_000 * seconds), generator=generator)
        names, texts = list(systems), set()
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.process_time()
            texts.add(systems[name](speech.numpy())[0][0])
            if number >= 0:
                spent[name].append(time.process_time() - start)
        assert len(texts) == 1, texts
    result: dict[str, Any] = {"utterances": rounds, "seconds each": seconds, "decoder": "conf/decode_ctc_greedy.yaml"}
    for name, values in spent.items():
        ratios = sorted(ours / stock for ours, stock in zip(values, spent["stock"], strict=True))
        result[name] = {"cpu seconds": statistics.median(values)}
        if name != "stock":
            quarter = len(ratios) // 4
            result[name] |= {"ratio": statistics.median(ratios), "quartiles": [ratios[quarter], ratios[-1 - quarter]]}
    return result


def checkpoint(folders: dict[str, Path]) -> dict[str, Any]:
    """Bytes of the files and of the adapter, and the gmot file's share of stock and adapter together."""
    bytes_ = {name: (folder / "model.pth").stat().st_size for name, folder in folders.items()}
    state = torch.load(folders["gmot"] / "model.pth", weights_only=True)
    bytes_["adapter"] = sum(value.nbytes for name, value in state.items() if name.startswith("gmot."))
    return {
        "bytes": bytes_,
        "exported / stock": bytes_["exported"] / bytes_["stock"],
        "gmot / (stock + adapter)": bytes_["gmot"] / (bytes_["stock"] + bytes_["adapter"]),
    }


def importing(processes: int) -> dict[str, Any]:
    """Median seconds of registration after ESPnet's import, each in a process of its own."""
    found = []
    for _ in range(processes):
        said = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        found.append([float(word) for word in said.split()[-2:]])
    cpu, wall = zip(*found, strict=True)
    return {
        "processes": processes,
        "cpu seconds": statistics.median(cpu),
        "wall seconds": statistics.median(wall),
        "most cpu seconds": max(cpu),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--utterances", type=int, default=100, help="utterances to decode by each system")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each, in seconds")
    parser.add_argument("--processes", type=int, default=7, help="processes that import the plugin")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        **provenance(),
        "threads": 1,
        "import": importing(args.processes),
    }
    with tempfile.TemporaryDirectory() as folder:
        folders = experiments(Path(folder))
        result["checkpoint"] = checkpoint(folders)
        result["decoding"] = decoding(folders, args.utterances, args.seconds)
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

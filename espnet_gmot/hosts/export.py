"""``export``: a stock ESPnet experiment out of a gmot one, for people who never install the plugin.

The transfer is needed in training only. So an exported experiment has the host's own tensors, a configuration without
the plugin's keys, and the files that the configuration refers to. The one thing that recognition does use, the linear
residual path (``residual: true``), is merged into the CTC head. Afterwards stock ESPnet decodes the same input in a
process in which the plugin can't be imported, and must give the same text.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.files import read_mapping, working_in
from espnet_gmot.hosts import portable, stock
from espnet_gmot.hosts.checkpoints import unpickle
from espnet_gmot.hosts.register import register
from espnet_gmot.hosts.unfit import long_enough
from espnet_gmot.kaldi.wav import read_audio

OWN = "gmot."
_RUN = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
ABSOLUTE, RELATIVE = 1e-4, 1e-5
"""How far log-probabilities may differ: merging rounds differently than two maps in a row."""


@dataclass(frozen=True)
class Exported:
    """An exported experiment that isn't checked yet: its configuration has a provisional name.

    Attributes:
        folder: where it is.
        model_file: its parameters.
        config: its configuration, ``config.yaml.partial``.
        original: the original experiment's configuration, as a dict, with paths that hold.
        original_file: the original experiment's parameters.
        model: the stock model with the exported parameters.
    """

    folder: Path
    model_file: Path
    config: Path
    original: dict[str, Any]
    original_file: Path
    model: torch.nn.Module


def export(experiment: Path, out: Path, model_file: str | None = None) -> Exported:
    """Write parameters, files and configuration of a stock experiment.

    Args:
        experiment: folder with ``config.yaml`` and ``*.pth``.
        out: folder to write.
        model_file: name of the parameters in the experiment's folder, or a path; by default the averaged ones of
            ``best_model_criterion``, as ESPnet's recipes decode with.

    Returns:
        What :func:`check` needs.

    Raises:
        UserError: an option stands in the way, a file is missing, or the tensors aren't those of the stock model.
    """
    register()
    import espnet2.tasks.asr as task

    if (out / "config.yaml").exists():
        raise UserError(f"--out {out}: holds an experiment already: choose another folder or remove it")
    config = read_config(experiment)
    source = find_model(experiment, config, model_file)
    portable.refuse(config, task.ASRTask, experiment)
    out.mkdir(parents=True, exist_ok=True)
    plain, copied, outside = portable.relocate(
        portable.stock_config(config, task.ASRTask), task.ASRTask, experiment, out
    )
    options = config["model_conf"].get("gmot_conf")
    original = {**plain, "model": config["model"], "model_conf": {**plain["model_conf"], "gmot_conf": options}}
    partial = out / "config.yaml.partial"
    partial.write_text(yaml.safe_dump(plain, indent=4, sort_keys=False, allow_unicode=True), encoding="utf8")

    state = read_state(source)
    resolved = GMOTConfig.from_dict(options)
    dropped, merged = strip(state, resolved.residual and resolved.transfers, source)
    model, _ = task.ASRTask.build_model_from_file(partial)
    same_tensors(state, model.state_dict(), source)
    model.load_state_dict(state)
    target = out / source.name
    unfinished = target.with_suffix(".partial")  # torch writes the stem into the file: the bytes are those of stock
    torch.save(model.state_dict(), unfinished)
    os.replace(unfinished, target)

    print(f"from     {source}")
    print(f"to       {target}: {len(state)} tensors, none missing, none unexpected; {dropped} of gmot left behind")
    print(f"merged   {'the residual path, into the CTC head' if merged else 'nothing: no residual path'}")
    print(f"copied   {', '.join(copied) or 'nothing'}")
    if outside:
        print(f"outside  {', '.join(outside)}: folders, not copied; whoever gets the export needs them as well")
    return Exported(out, target, partial, original, source, model)


def read_config(experiment: Path) -> dict[str, Any]:
    """The configuration of an experiment of model gmot.

    Raises:
        UserError: there is none, or it is of another model.
    """
    path = experiment / "config.yaml"
    if not path.is_file():
        raise UserError(f"{path}: no such file: give the folder of a trained ESPnet experiment, such as exp/asr_TAG")
    config = read_mapping(path)
    if "model_conf" not in config:
        raise UserError(f"{path}: no configuration of an ESPnet2 ASR experiment: model_conf is missing")
    return config


def find_model(experiment: Path, config: dict[str, Any], name: str | None = None) -> Path:
    """The parameters to export: those named, or ESPnet's own choice (average, best, latest).

    Raises:
        UserError: none is there.
    """
    names = [name] if name is not None else [*_averages(config), "latest.pth"]
    for path in [experiment / name for name in names] + ([Path(name)] if name else []):
        if path.is_file():
            return path
    found = ", ".join(sorted(path.name for path in experiment.glob("*.pth"))) or "none"
    raise UserError(f"{experiment}: holds none of {', '.join(names)}; of *.pth it has: {found}; choose by --model_file")


def _averages(config: dict[str, Any]) -> list[str]:
    """Names that ESPnet gives to the average and to the best of the criteria for it."""
    names = []
    for first, second, _ in config.get("best_model_criterion") or ():
        if "/" in first:  # ESPnet3: [valid/loss, how many, min]
            names.append(f"{first.replace('/', '.')}.ave_{second}best.pth")
        else:  # ESPnet2: [valid, loss, min]
            names += [f"{first}.{second}.{kind}.pth" for kind in ("ave", "best")]
    return names


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A model's tensors by name.

    Raises:
        UserError: the file holds something else, such as the trainer's state.
    """
    state = unpickle(path, map_location="cpu")
    state = state.get("module", state)  # DeepSpeed
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: not a model's parameters (it holds {', '.join(map(str, state))}): give --model_file")
    return state


def strip(state: dict[str, torch.Tensor], residual: bool, path: Path) -> tuple[int, bool]:
    """Take the plugin's tensors out, in place; merge the residual path into the CTC head.

    With A, a the adapter's map, B, β the way back and W, b the CTC head, W(x + B(Ax + a) + β) + b is one linear map:
    W' = W(I + BA), b' = b + W(Ba + β). Computed in double precision.

    Args:
        state: the tensors.
        residual: whether the configuration has such a path.
        path: the file, for messages.

    Returns:
        How many tensors went, and whether a path was merged.

    Raises:
        UserError: the configuration has a residual path, the file hasn't, or the other way round.
    """
    own = {name: state.pop(name) for name in list(state) if name.startswith(OWN)}
    if residual != (f"{OWN}back.weight" in own):
        raise UserError(f"{path}: gmot_conf.residual is {residual}, but these parameters are of another configuration")
    if residual:
        there, back, head = (
            (tensors[f"{name}.weight"].double(), tensors[f"{name}.bias"].double())
            for tensors, name in ((own, f"{OWN}adapter.map"), (own, f"{OWN}back"), (state, "ctc.ctc_lo"))
        )
        weight = head[0] + head[0] @ back[0] @ there[0]
        bias = head[1] + head[0] @ (back[0] @ there[1] + back[1])
        for name, value in (("ctc.ctc_lo.weight", weight), ("ctc.ctc_lo.bias", bias)):
            state[name] = value.to(state[name].dtype)
    return len(own), residual


def same_tensors(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], path: Path) -> None:
    """Compare names and shapes with those of the model that stock ESPnet builds; ESPnet itself loads laxly.

    Raises:
        UserError: naming what is missing, unexpected or of another shape.
    """
    shapes = [name for name in state.keys() & expected.keys() if state[name].shape != expected[name].shape]
    faults = {
        "missing": expected.keys() - state.keys(),
        "unexpected": state.keys() - expected.keys(),
        "of another shape": shapes,
    }
    text = "; ".join(
        f"{what}: {', '.join(sorted(names)[:3])} ({len(names)})" for what, names in faults.items() if names
    )
    if text:
        raise UserError(f"{path}: not the tensors of the stock model that config.yaml describes: {text}")


def check(exported: Exported, wav: Path | None = None) -> tuple[str, float]:
    """Decode the same input with the original and, in a process without the plugin, with the export.

    Args:
        exported: what :func:`export` gave.
        wav: a recording; noise by default, or random features where the model reads features.

    Returns:
        The text of both, and the largest difference of their CTC log-probabilities.

    Raises:
        UserError: stock ESPnet can't decode the export, or gives something else.
    """
    speech = check_input(exported, wav)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("input.npy", "stock", "original.yaml")]
        np.save(paths[0], speech)
        paths[2].write_text(yaml.safe_dump(exported.original, allow_unicode=True), encoding="utf8")
        # not `python stock.py`: the script's own folder holds modules of the plugin, and would head sys.path.
        # Elsewhere than here, so that no path happens to fit
        command = [sys.executable, "-c", _RUN, stock.__file__, exported.config, exported.model_file, *paths[:2]]
        words = [str(word.absolute()) if isinstance(word, Path) else str(word) for word in command]
        log = open(Path(folder, "log"), "w+b")  # noqa: SIM115 - closed below, after the process that writes it
        with log, subprocess.Popen(words, cwd=folder, stdout=log, stderr=log) as process:
            with long_enough(f"--check_wav {wav}" if wav else "noise"):
                expected = stock.decode(paths[2], exported.original_file, speech)
            if process.wait() != 0:
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
                raise UserError(f"{exported.folder}: stock ESPnet can't decode the export: {lines[-1]}")
        answer = yaml.safe_load(Path(folder, "stock.json").read_text(encoding="utf8"))
        found = stock.Decoded(answer["text"], answer["tokens"], np.load(Path(folder, "stock.npy"), allow_pickle=False))
    return expected.text, compare(expected, found, exported.folder)


def compare(expected: stock.Decoded, found: stock.Decoded, folder: Path) -> float:
    """The largest difference of the log-probabilities of two decodings of one input.

    Args:
        expected: by the original.
        found: by the export.
        folder: the export's, for messages.

    Raises:
        UserError: the texts differ, or the log-probabilities by more than rounding.
    """
    difference = float(np.abs(found.log_probs - expected.log_probs).max())
    alike = np.allclose(found.log_probs, expected.log_probs, rtol=RELATIVE, atol=ABSOLUTE)
    if found.text != expected.text or not alike:
        raise UserError(
            f"{folder}: stock ESPnet says '{found.text}', the original '{expected.text}'; log-probabilities differ by "
            f"{difference:.1e}: don't use this export, and report it with its config.yaml"
        )
    return difference


def check_input(exported: Exported, wav: Path | None) -> np.ndarray:
    """The recording (samples,), or seeded noise: two seconds, or 200 frames of the data's mean and deviation.

    Raises:
        UserError: the recording can't be read by this model.
    """
    config, random = exported.original, np.random.default_rng(0)
    if config.get("input_size") is not None:
        if wav is not None:
            raise UserError(f"--check_wav {wav}: this model reads extracted features (input_size): leave it out")
        noise = random.standard_normal((200, config["input_size"]))
        if config.get("normalize") == "global_mvn":
            scale: Any = exported.model.normalize
            noise = noise * scale.std.numpy() + scale.mean.numpy()
        return noise.astype(np.float32)
    rate = portable.sampling_rate(config)
    if wav is None:
        return (0.1 * random.standard_normal(2 * rate)).astype(np.float32)
    if not wav.is_file():  # nor a command, which a wav.scp could hold
        raise UserError(f"--check_wav {wav}: no such file")
    try:
        return read_audio(str(wav), rate)
    except UserError as error:
        raise UserError(f"--check_wav {error}") from error


def pack(folder: Path, model_file: Path) -> Path:
    """Make the zip that ESPnet's model zoo takes, with ESPnet's own packer; its paths hold wherever it is unpacked.

    Args:
        folder: an exported experiment.
        model_file: its parameters.

    Returns:
        The zip, in the folder.
    """
    from espnet2.bin import pack as packer

    target = folder.absolute() / f"{folder.absolute().name}_{model_file.stem}.zip"
    partial = target.with_suffix(".partial.zip")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        stage = Path(name)
        for path in folder.iterdir():
            if path.is_file() and path.suffix != ".zip":
                shutil.copy2(path, stage)
        config = yaml.safe_load((stage / "config.yaml").read_text(encoding="utf8"))
        config = portable.relative(config, folder)
        (stage / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf8")
        others = sorted({path.name for path in stage.iterdir()} - {"config.yaml", model_file.name})
        words = ["asr", "--outpath", str(partial), "--asr_train_config", "config.yaml"]
        words += ["--asr_model_file", model_file.name, *(word for other in others for word in ("--option", other))]
        # ESPnet names what it packs by the way from the working directory
        with working_in(stage), contextlib.redirect_stdout(None):
            packer.main(words)
    os.replace(partial, target)
    return target


def parser() -> argparse.ArgumentParser:
    """The options of ``export``."""
    result = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot export",
        description="Write a stock ESPnet experiment out of a gmot one, and prove that stock ESPnet decodes alike.",
    )
    result.add_argument("experiment", type=Path, metavar="EXP", help="folder of the experiment: config.yaml, *.pth")
    result.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    result.add_argument("--model_file", metavar="NAME", help="parameters; by default valid.CRITERION.ave.pth")
    result.add_argument("--check_wav", type=Path, metavar="WAV", help="recording for the check; noise by default")
    result.add_argument("--zip", action="store_true", help="also make the zip that ESPnet's model zoo takes")
    return result


def main(argv: list[str] | None = None) -> int:
    """Export, check, name the configuration, pack.

    Args:
        argv: the words after ``export``.

    Returns:
        0.

    Raises:
        UserError: see :func:`export` and :func:`check`.
    """
    args = parser().parse_args(argv)
    exported = export(args.experiment, args.out, args.model_file)
    text, difference = check(exported, args.check_wav)
    features = exported.original.get("input_size") is not None
    given = args.check_wav or ("random features" if features else "noise (give a recording by --check_wav)")
    print(f"checked  {given}: stock ESPnet without the plugin says '{text}', as the original does;")
    print(f"         log-probabilities differ by at most {difference:.1e}")
    os.replace(exported.config, args.out / "config.yaml")
    if args.zip:
        print(f"zip      {pack(args.out, exported.model_file)}")
    return 0


__all__ = ["Exported", "check", "export", "main", "pack", "strip"]

"""What 16-bit and 8-bit teacher archives change in the transfer loss and in its gradient, for one trained model.

python3 benchmarks/teacher_precision.py --exp exp/asr_mini_gmot --set dump/extracted/dev [--teacher teacher]

Run it where the recipe ran (run_mini.sh's --workdir). Every utterance goes through the encoder once; the loss and its
gradient on the encoder's output are then taken with the float32 features and with what each archive gives back. The
yardstick: float32 features, and a solver that stops at half its tolerance.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import kaldiio
import numpy as np
import torch

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.ark import PRECISIONS, write_archive
from espnet_gmot.loss import GMOTLoss


def trained_model(exp: Path, name: str) -> torch.nn.Module:
    """A trained ``model: gmot`` with one transfer, in evaluation mode."""
    from espnet_gmot.hosts.register import register

    register()
    from espnet2.tasks.asr import ASRTask

    model, _ = ASRTask.build_model_from_file(exp / "config.yaml", exp / name, "cpu")
    if not isinstance(getattr(model, "gmot", None), GMOTLoss):
        raise UserError(f"--exp {exp}: no single transfer there; give an experiment with model: gmot and one tap")
    return model.eval()


def stored(exact: dict[str, np.ndarray], precision: str) -> dict[str, torch.Tensor]:
    """What an archive of this precision gives back of (U, D) features by utterance."""
    with tempfile.TemporaryDirectory() as folder:
        ark = Path(folder) / "teacher.ark"
        offsets = write_archive(ark, exact.items(), precision)
        read = [np.array(kaldiio.load_mat(f"{ark}:{offset}")) for offset in offsets]
    return dict(zip(exact, map(torch.from_numpy, read), strict=True))


def loss_and_gradient(
    model: torch.nn.Module, config: GMOTConfig, encoded: torch.Tensor, features: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """The transfer loss of one utterance and its gradient on the encoder's output (1, T, width)."""
    model.gmot.config = config
    encoded = encoded.clone().requires_grad_()
    lengths = [torch.tensor([rows.shape[0]]) for rows in (encoded[0], features)]
    loss, _ = model.gmot(encoded, lengths[0], features[None], lengths[1])
    return loss.item(), torch.autograd.grad(loss, encoded)[0]


def main() -> None:
    """Print one table of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", required=True, type=Path, help="experiment that run.sh trained, with one tap")
    parser.add_argument("--set", required=True, type=Path, help="folder with feats.scp and the teacher's features")
    parser.add_argument("--teacher", default="teacher", help="folder of the float32 features in --set")
    parser.add_argument("--model_file", default="valid.cer_ctc.ave.pth", help="parameters in --exp")
    args = parser.parse_args()
    folder = args.set / args.teacher
    if (precision := json.loads((folder / "teacher.json").read_text(encoding="utf-8"))["precision"]) != "float32":
        raise UserError(f"--teacher {args.teacher}: stored as {precision}; give a float32 archive to compare with")
    model = trained_model(args.exp, args.model_file)
    exact = dict(kaldiio.load_scp_sequential(str(folder / "teacher.scp")))
    features = {precision: stored(exact, precision) for precision in PRECISIONS}
    config = model.gmot.config
    finer = replace(config, tolerance=config.tolerance / 2)
    trials = {name: (read, config) for name, read in features.items() if name != "float32"}
    trials[f"float32, tolerance {finer.tolerance:g} for {config.tolerance:g}"] = features["float32"], finer
    changes: dict[str, list[tuple[float, float]]] = {name: [] for name in trials}
    for key, speech in kaldiio.load_scp_sequential(str(args.set / "feats.scp")):
        with torch.no_grad():
            encoded, _ = model.encode(torch.from_numpy(speech.copy())[None], torch.tensor([len(speech)]))
        loss, gradient = loss_and_gradient(model, config, encoded, features["float32"][key])
        for name, (read, options) in trials.items():
            other, changed = loss_and_gradient(model, options, encoded, read[key])
            turned = (changed - gradient).norm() / gradient.norm()
            changes[name].append((abs(other - loss) / loss, turned.item()))
    print(f"{len(exact)} utterances, each by itself; relative changes against float32, median / largest\n")
    print("| archive | transfer loss | gradient on the encoder's output |")
    print("|---|---|---|")
    for name, pairs in changes.items():
        (loss, turned), (most, farthest) = np.median(pairs, axis=0), np.max(pairs, axis=0)
        print(f"| {name} | {loss:.1e} / {most:.1e} | {turned:.1e} / {farthest:.1e} |")


if __name__ == "__main__":
    main()

"""`python3 -m espnet_gmot pretrain-plm`: train a small character BERT on masked text, or adapt a given model."""

import argparse
import hashlib
import json
import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from espnet_gmot.errors import UserError
from espnet_gmot.files import alone, write_json
from espnet_gmot.hub import check_device
from espnet_gmot.teacher.corpus import read_sentences
from espnet_gmot.teacher.mlm import LR_ADAPT, LR_SCRATCH, Pretrainer, PretrainOptions, Score
from espnet_gmot.version import __version__

_LOG = logging.getLogger(__name__)


def _claim(out: Path, identity: dict[str, Any], overwrite: bool) -> bool:
    """Make ``out`` this run's folder; returns whether the run is finished already.

    Raises:
        UserError: the folder belongs to a run with other options or text, and ``overwrite`` is not given.
    """
    plan, checkpoint = out / "pretrain.json", out / "checkpoint.pt"
    known = json.loads(plan.read_text(encoding="utf-8")) if plan.exists() else {"identity": None, "finished": False}
    if known["identity"] == identity:
        return bool(known["finished"])
    if (known["finished"] or checkpoint.exists()) and not overwrite:
        was = known["identity"] or {}
        values = ", ".join(f"{k} was {was.get(k)}, now {identity[k]}" for k in identity if was.get(k) != identity[k])
        raise UserError(f"--out {out}: holds a run with other options ({values}); choose another --out or --overwrite")
    checkpoint.unlink(missing_ok=True)
    write_json(plan, {"identity": identity, "finished": False})
    return False


def pretrain(
    options: PretrainOptions,
    files: list[Path],
    out: Path,
    *,
    text_format: str = "plain",
    device: str = "cpu",
    save_seconds: float = 60,
    overwrite: bool = False,
) -> Score:
    """Train a masked LM on text files and save it to ``out``, continuing a run that was interrupted there.

    Args:
        options: what to train.
        files: UTF-8 text.
        out: folder for the model, its tokenizer and ``pretrain.json`` (options, text digest, score).
        text_format: ``kaldi`` (``utterance transcript``) or ``plain`` (a sentence per line).
        device: torch device.
        save_seconds: time between checkpoints.
        overwrite: replace a run with other options.

    Returns:
        The score on held-out sentences; a finished run is not repeated.

    Raises:
        UserError: bad options or text, or ``out`` belongs to another run.
    """
    options.check()
    check_device(device)
    sentences = read_sentences(files, text_format)
    text = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
    identity = asdict(options) | {"sentences": len(sentences), "text_digest": text}
    if _claim(out, identity, overwrite):
        score = json.loads((out / "pretrain.json").read_text(encoding="utf-8"))["score"]
        _LOG.info("%s: already finished, held-out loss %.3f, accuracy %.3f", out, score["loss"], score["accuracy"])
        return Score(**score)
    with torch.random.fork_rng(devices=[]):
        run = Pretrainer(options, sentences, out, device)
        run.load_checkpoint()
        parameters = sum(p.numel() for p in run.model.parameters())
        _LOG.info(
            "%d sentences, %d tokens in the vocabulary, %d parameters", len(sentences), len(run.tokenizer), parameters
        )
        score = run.train(save_seconds)
    run.save()
    versions = {"espnet_gmot": __version__, "torch": torch.__version__}
    write_json(
        out / "pretrain.json",
        {
            "identity": identity,
            "finished": True,
            "score": asdict(score),
            "text": [*map(str, files)],
            "versions": versions,
        },
    )
    run.checkpoint.unlink(missing_ok=True)
    return score


def get_parser() -> argparse.ArgumentParser:
    """The command line of pretrain-plm."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot pretrain-plm",
        description="Masked-LM training of a small character BERT from scratch, or of a given model (--init) on text "
        "of your domain. A rerun continues an interrupted run; a finished one is left as it is.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for model and tokenizer")
    add("--text", type=Path, nargs="+", required=True, help="UTF-8 text files")
    add("--text_format", choices=["plain", "kaldi"], default="plain", help="sentences, or `utterance transcript` lines")
    add("--init", help="folder or hub name of a model to adapt; without it a new model is trained")
    helps = {
        "layers": "layers of a new model",
        "width": "hidden size of a new model",
        "heads": "attention heads of a new model",
        "vocab_min_count": "rarer characters are [UNK] in a new model",
        "epochs": "passes over the text",
        "steps": "updates, instead of --epochs",
        "batch_size": "sentences per update",
        "lr": f"peak learning rate; by default {LR_SCRATCH} for a new model, {LR_ADAPT} with --init",
        "warmup": "share of updates with a rising learning rate",
        "mask_rate": "share of tokens to predict",
        "max_length": "tokens per sequence; longer sentences are cut",
        "held_out": "share of sentences kept for measuring",
        "seed": "of everything random",
    }
    floats = {"lr", "warmup", "mask_rate", "held_out"}
    for field in fields(PretrainOptions):
        if field.name in helps:
            kind = float if field.name in floats else int
            add(f"--{field.name}", type=kind, default=field.default, help=helps[field.name])
    add("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    add("--save_seconds", type=float, default=60, help="time between checkpoints")
    add("--overwrite", action="store_true", help="replace a run with other options in --out")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python3 -m espnet_gmot pretrain-plm`."""
    args = vars(get_parser().parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    options = PretrainOptions(**{field.name: args.pop(field.name) for field in fields(PretrainOptions)})
    out = args.pop("out")
    with alone(out):
        score = pretrain(options, args.pop("text"), out, **args)
    _LOG.info("finished: %s, held-out loss %.3f, masked accuracy %.3f", out, score.loss, score.accuracy)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

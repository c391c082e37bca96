"""`python3 -m espnet_gmot dump-teacher`: teacher features of a data set's transcripts, once, into Kaldi archives."""

import argparse
import logging
import multiprocessing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.teacher.archive import make_folder, replacing, write_json
from espnet_gmot.teacher.loading import check_device, fingerprint
from espnet_gmot.teacher.plm import PLMTeacher
from espnet_gmot.teacher.shards import Shard, dump_shard, plan_shards, read_note
from espnet_gmot.teacher.transcripts import read_transcripts
from espnet_gmot.version import __version__

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DumpOptions:
    """What dump-teacher computes and how.

    Attributes:
        model: folder or hub name of the teacher.
        layer: hidden states to take, as `PLMTeacher` counts them.
        special_tokens: keep [CLS] and [SEP] rows.
        nj: processes.
        batch_size: transcripts per forward pass.
        device: torch device of the teacher.
        max_unknown: largest share of unknown characters allowed, 0 to 1.
    """

    model: str
    layer: int = -1
    special_tokens: bool = False
    nj: int = 1
    batch_size: int = 64
    device: str = "cpu"
    max_unknown: float = 0.5

    def check(self) -> None:
        """Raise a ``UserError`` for a value out of range."""
        for name in ("nj", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1")
        if not 0 <= self.max_unknown <= 1:
            raise UserError(f"--max_unknown {self.max_unknown}: must lie between 0 and 1")
        check_device(self.device)

    def teacher(self) -> PLMTeacher:
        """The teacher that these options describe."""
        return PLMTeacher(
            self.model,
            layer=self.layer,
            special_tokens=self.special_tokens,
            device=self.device,
            max_unknown=self.max_unknown,
        )


def _start_worker(options: DumpOptions, threads: int) -> None:
    global _worker
    torch.set_num_threads(threads)
    _worker = (options.teacher(), options.batch_size)


def _work(shard: Shard) -> int:
    teacher, batch_size = _worker
    dump_shard(teacher, shard, batch_size, lambda _: None)
    return len(shard.texts)


_worker: tuple[PLMTeacher, int]


def _run(options: DumpOptions, teacher: PLMTeacher, shards: list[Shard], done: int) -> None:
    """Compute ``shards``, longest transcripts first: whatever is too long or too big shows at once."""
    from tqdm import tqdm

    total = done + sum(len(shard.texts) for shard in shards)
    nj = min(options.nj, len(shards))
    with tqdm(total=total, initial=done, desc="dump-teacher", unit="text", mininterval=1, dynamic_ncols=True) as bar:
        if nj <= 1:
            for shard in reversed(shards):
                dump_shard(teacher, shard, options.batch_size, bar.update)
            return
        threads = max(1, torch.get_num_threads() // nj)
        # spawn: a forked child of a process that has run torch threads may hang
        context = multiprocessing.get_context("spawn")
        with context.Pool(nj, _start_worker, (options, threads)) as pool:
            for size in pool.imap_unordered(_work, reversed(shards)):
                bar.update(size)


def _clear_other_features(out: Path, features: dict[str, Any], overwrite: bool) -> None:
    """Refuse a folder with other features in it, or empty it of them when told to."""
    notes = sorted(out.glob("teacher.*.json"))
    others = [note["features"] for path in notes if (note := read_note(path)) and note["features"] != features]
    if not others:
        return
    if not overwrite:
        names = {"model_digest": "model"}
        changed = [names.get(k, k) for k in features if others[0].get(k) != features[k]]
        raise UserError(
            f"--out {out}: already holds features with another {' and '.join(changed)} "
            f"({others[0]} there); choose another --out, or --overwrite to replace them"
        )
    for path in [out / "teacher.scp", out / "teacher.json", *notes, *out.glob("teacher.*.ark")]:
        path.unlink(missing_ok=True)


def dump(options: DumpOptions, text: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Write the teacher's features for all transcripts of ``text``; finished parts of an earlier run are kept.

    Args:
        options: teacher and resources.
        text: Kaldi text file, ``utterance transcript`` lines.
        out: folder to write; see `espnet_gmot.teacher.archive` for what it holds.
        overwrite: replace features of another model, layer or token choice instead of refusing.

    Returns:
        The scp file, with the utterances in the text file's order.

    Raises:
        UserError: bad options, transcripts, teacher or folder; each message says what to do.
    """
    options.check()
    transcripts = read_transcripts(text)
    teacher = options.teacher()
    depth, layer = teacher.config.num_hidden_layers, options.layer
    features = {
        "model_digest": fingerprint(options.model),
        "layer": layer if layer >= 0 else layer + depth + 1,
        "special_tokens": options.special_tokens,
    }
    make_folder(out)
    _clear_other_features(out, features, overwrite)
    distinct = list(dict.fromkeys(transcripts.values()))
    rate, unknown = teacher.tokens.check_language(distinct, options.max_unknown)
    if unknown:
        _LOG.warning("%.2f %% of the characters are unknown to the teacher: %s", 100 * rate, " ".join(unknown[:20]))
    shards = plan_shards(transcripts, out, features, teacher.width)
    todo = [shard for shard in shards if shard.finished() is None]
    done = len(distinct) - sum(len(shard.texts) for shard in todo)
    _LOG.info(
        "%d utterances, %d distinct transcripts, %d already there: %s", len(transcripts), len(distinct), done, out
    )
    if todo:
        (out / "teacher.scp").unlink(missing_ok=True)  # never an index of parts that are being replaced
        _run(options, teacher, todo, done)
    return _finish(options, text, out, transcripts, shards, rate)


def _finish(
    options: DumpOptions, text: Path, out: Path, transcripts: dict[str, str], shards: list[Shard], unknown: float
) -> Path:
    """Write teacher.json, then teacher.scp: its presence says that all is there."""
    import transformers

    places, total, rows = {}, 0.0, 0
    for shard in shards:
        note = shard.finished()
        if note is None:
            raise UserError(f"{shard.path}: changed while dump-teacher was running; run it again, alone")
        places.update(zip(shard.texts, (f"{shard.path}:{offset}" for offset in note["offsets"]), strict=True))
        total, rows = total + np.asarray(note["sum"]), rows + note["rows"]
    names = {shard.path.name for shard in shards}
    for stale in (ark for ark in out.glob("teacher.*.ark") if ark.name not in names):
        stale.unlink()
        stale.with_suffix(".json").unlink(missing_ok=True)
    info = {
        "format": 1,
        **{k: v for k, v in asdict(options).items() if k in ("model", "special_tokens")},
        **shards[0].features,
        "width": shards[0].width,
        "utterances": len(transcripts),
        "texts": len(places),
        "rows": rows,
        "unknown_rate": unknown,
        "text": str(text),
        "versions": {"espnet_gmot": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "mean": (total / rows).tolist(),
    }
    write_json(out / "teacher.json", info)
    with replacing(out / "teacher.scp") as handle:
        handle.writelines(f"{utterance} {places[text]}\n" for utterance, text in transcripts.items())
    return out / "teacher.scp"


def get_parser() -> argparse.ArgumentParser:
    """The command line of dump-teacher."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot dump-teacher",
        description="Precompute teacher features of transcripts into Kaldi archives that ESPnet reads as a data "
        "stream. A rerun keeps finished parts, checks them and mends truncated ones.",
    )
    default = DumpOptions(model="")
    parser.add_argument("--model", required=True, help="folder, or name on the Hugging Face hub (bert-base-chinese)")
    parser.add_argument("--text", required=True, type=Path, help="Kaldi text file: `utterance transcript` lines")
    parser.add_argument("--out", required=True, type=Path, help="folder for teacher.scp, teacher.*.ark, teacher.json")
    parser.add_argument("--layer", type=int, default=default.layer, help="0 embeddings, 1 … N, or -1 (last) … -N-1")
    parser.add_argument("--special_tokens", action="store_true", help="keep the rows of [CLS] and [SEP]")
    parser.add_argument("--nj", type=int, default=default.nj, help="processes")
    parser.add_argument("--batch_size", type=int, default=default.batch_size, help="transcripts per forward pass")
    parser.add_argument("--device", default=default.device, help="cpu, cuda, cuda:1 …")
    parser.add_argument(
        "--max_unknown",
        type=float,
        default=default.max_unknown,
        help="share of unknown characters (0 to 1) beyond which the teacher is refused",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace features of another model or layer in --out")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python3 -m espnet_gmot dump-teacher`."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    names = DumpOptions.__dataclass_fields__
    options = DumpOptions(**{name: getattr(args, name) for name in names})
    scp = dump(options, args.text, args.out, overwrite=args.overwrite)
    _LOG.info("finished: %s", scp)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`python3 -m espnet_gmot dump-teacher`: teacher features of a data set's transcripts, once, into Kaldi archives."""

import argparse
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_gmot.errors import UserError, check_least
from espnet_gmot.files import make_folder, write_json, write_text
from espnet_gmot.hub import check_device, model_digest
from espnet_gmot.kaldi.ark import PRECISIONS
from espnet_gmot.kaldi.shards import Dump, Shard, Worker, add_options
from espnet_gmot.kaldi.tables import read_transcripts
from espnet_gmot.teacher.cleaning import Cleaner, read_symbols
from espnet_gmot.teacher.normalise import MODES, STATS_NAME, FeatureStats
from espnet_gmot.teacher.plm import PLMTeacher
from espnet_gmot.teacher.statistics import borrow, measure, provide, stats_key
from espnet_gmot.version import __version__

_LOG = logging.getLogger(__name__)
_MOST_SHARDS, _SMALLEST_SHARD = 64, 256  # see `espnet_gmot.kaldi.shards.Dump`


@dataclass(frozen=True)
class DumpOptions:
    """What dump-teacher computes and how.

    Attributes:
        model: folder or hub name of the teacher.
        layer: hidden states to take, as `PLMTeacher` counts them; several lie side by side.
        special_tokens: keep [CLS] and [SEP] rows.
        nj: processes.
        batch_size: transcripts per forward pass.
        device: torch device of the teacher.
        max_unknown: largest share of unknown characters allowed, 0 to 1.
        normalise: ``none``, ``centre`` or ``whiten``.
        stats: statistics to normalise by (a file, or another dump's folder); without, those of the transcripts.
        precision: how the archives store the features, see `espnet_gmot.kaldi.ark.PRECISIONS`.
        nlsyms_txt: file of non-linguistic symbols, such as <NOISE>, that the teacher must not read.
    """

    model: str
    layer: int | list[int] = -1
    special_tokens: bool = False
    nj: int = 1
    batch_size: int = 64
    device: str = "cpu"
    max_unknown: float = 0.5
    normalise: str = "none"
    stats: str | None = None
    precision: str = "float32"
    nlsyms_txt: str | None = None

    def check(self) -> None:
        """Raise a ``UserError`` for a value out of range."""
        check_least(self, 1, "nj", "batch_size")
        if not 0 <= self.max_unknown <= 1:
            raise UserError(f"--max_unknown {self.max_unknown}: must lie between 0 and 1")
        for name, known in (("normalise", MODES), ("precision", tuple(PRECISIONS))):
            if getattr(self, name) not in known:
                raise UserError(f"--{name} {getattr(self, name)}: must be one of {', '.join(known)}")
        if self.stats is not None and self.normalise == "none":
            raise UserError(f"--stats {self.stats}: say what to do with them: --normalise centre or whiten")
        check_device(self.device)

    def teacher(self) -> PLMTeacher:
        """The teacher that these options describe."""
        return PLMTeacher(
            self.model,
            layer=self.layer,
            special_tokens=self.special_tokens,
            device=self.device,
            max_unknown=self.max_unknown,
            stats=self.stats,
        )

    def worker(self) -> Worker:
        """Computes shards with a teacher of its own."""
        return partial(dump_shard, self.teacher(), self.batch_size)


def dump_shard(teacher: PLMTeacher, batch_size: int, shard: Shard, advance: Callable[[int], Any]) -> None:
    """Compute and write one shard of (utterance, transcript) items; ``advance`` is told how many each batch had."""
    total = np.zeros(shard.width)
    known: dict[str, Any] = {"rows": 0, "sum": [], "empty": []}

    def matrices() -> Iterator[tuple[str, np.ndarray]]:
        """Keys and features, batch by batch; their sum is known after the last."""
        for start in range(0, len(shard.items), batch_size):
            keys, texts = map(list, zip(*shard.items[start : start + batch_size], strict=True))
            features, lengths = teacher(texts, keys)
            for key, matrix, length in zip(keys, features.cpu().numpy(), lengths.tolist(), strict=True):
                np.add(total, matrix[:length].sum(axis=0, dtype=np.float64), out=total)
                known["rows"] += length
                if length == 0:
                    known["empty"].append(key)
                # ESPnet wants features of every utterance, and Kaldi can't compress a matrix without rows
                yield key, matrix[:length] if length else np.zeros((1, shard.width), dtype=np.float32)
            advance(len(keys))
        known["sum"] = total.tolist()

    shard.write(matrices(), known, shard.features.get("precision", "float32"))


def _describe(options: DumpOptions, teacher: PLMTeacher) -> dict[str, Any]:
    """What decides the teacher's own features; defaults of later options are left out, so that old archives stay."""
    depth = teacher.config.num_hidden_layers
    layers = [layer if layer >= 0 else layer + depth + 1 for layer in teacher.layers]
    return {
        "model_digest": model_digest(options.model),
        "layer": layers[0] if isinstance(options.layer, int) else layers,
        "special_tokens": options.special_tokens,
    }


def dump(options: DumpOptions, text: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Write the teacher's features for all transcripts of ``text``; finished parts of an earlier run are kept.

    Args:
        options: teacher and resources.
        text: Kaldi text file, ``utterance transcript`` lines.
        out: folder to write; see `espnet_gmot.kaldi.ark` for what it holds.
        overwrite: replace features of other options (model, layer, …) instead of refusing.

    Returns:
        The scp file, with the utterances in the text file's order.

    Raises:
        UserError: bad options, transcripts, teacher or folder; each message says what to do.
    """
    options.check()
    clean = Cleaner(read_symbols(options.nlsyms_txt) if options.nlsyms_txt else ())
    transcripts = {utterance: clean(transcript) for utterance, transcript in read_transcripts(text).items()}
    teacher = replace(options, stats=None).teacher()
    source = _describe(options, teacher)
    distinct = list(dict.fromkeys(transcripts.values()))
    features = source | ({} if options.precision == "float32" else {"precision": options.precision})
    borrowed = None if options.stats is None else borrow(options.stats, options.normalise, source)
    key = borrowed.key if borrowed else stats_key(source, options.normalise, distinct)
    if options.normalise != "none":
        features |= {"normalise": options.normalise, "stats": key}
    make_folder(out)
    folder = Dump("dump-teacher", out, "teacher", _MOST_SHARDS, _SMALLEST_SHARD, options.device)
    folder.clear_others(features, overwrite, more=("teacher.scp", "teacher.json", STATS_NAME), ignored="stats")
    rate, unknown = teacher.tokens.check_language(distinct, options.max_unknown)
    if unknown:
        _LOG.warning("%.2f %% of the characters are unknown to the teacher: %s", 100 * rate, " ".join(unknown[:20]))
    if options.normalise != "none":

        def statistics() -> FeatureStats:
            """Borrowed ones, or these transcripts' own."""
            return borrowed or measure(
                teacher, distinct, whiten=options.normalise == "whiten", batch_size=options.batch_size
            )

        teacher.stats = provide(out / STATS_NAME, key, source, statistics)
    first = {text: utterance for utterance, text in reversed(transcripts.items())}  # utterances that name matrices
    items = [(first[text], text) for text in sorted(first, key=lambda text: (len(text), text))]
    shards = folder.plan(items, [text for _, text in items], features, teacher.width)
    todo = [shard for shard in shards if shard.finished() is None]
    done = len(items) - sum(len(shard.items) for shard in todo)
    _LOG.info("%d utterances, %d distinct transcripts, %d already there: %s", len(transcripts), len(items), done, out)
    with folder.filling("teacher.scp", todo):
        there = replace(options, stats=teacher.stats)
        folder.run(todo, partial(dump_shard, teacher, options.batch_size), there.worker, options.nj, done)
        return _finish(options, text, transcripts, folder, shards, rate)


def _finish(
    options: DumpOptions, text: Path, transcripts: dict[str, str], folder: Dump, shards: list[Shard], unknown: float
) -> Path:
    """Write teacher.json, then teacher.scp: its presence says that all is there."""
    import transformers

    places: dict[str, str] = {}
    empty: set[str] = set()
    total, rows = np.zeros(()), 0
    for shard, note in zip(shards, folder.collect(shards), strict=True):
        empty.update(note.get("empty", ()))
        places.update(zip(shard.content, (f"{shard.path}:{offset}" for offset in note["offsets"]), strict=True))
        total, rows = total + np.asarray(note["sum"]), rows + note["rows"]
    if rows == 0:
        raise UserError(f"{text}: no transcript holds anything for the teacher to read; check it and --nlsyms_txt")
    skipped = _list_skipped(folder.out / "skipped.txt", transcripts, {transcripts[key] for key in empty})
    info = {
        "format": 1,
        **{k: v for k, v in asdict(options).items() if k in ("model", "special_tokens", "normalise", "precision")},
        **shards[0].features,
        "width": shards[0].width,
        "utterances": len(transcripts),
        "texts": len(places),
        "skipped": skipped,
        "rows": rows,
        "unknown_rate": unknown,
        "text": str(text),
        "versions": {"espnet_gmot": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "mean": (total / rows).tolist(),
    }
    write_json(folder.out / "teacher.json", info)
    # by its time, where it is large, later stages tell whether it is another: untouched if it is the same
    write_text(
        folder.out / "teacher.scp",
        "".join(f"{utterance} {places[text]}\n" for utterance, text in transcripts.items()),
    )
    return folder.out / "teacher.scp"


def _list_skipped(path: Path, transcripts: dict[str, str], empty: set[str]) -> int:
    """List the utterances whose text is nothing to the teacher: one row of zeros, no transfer; returns their number."""
    lines = [f"{utterance} nothing to read\n" for utterance, text in transcripts.items() if text in empty]
    if not lines:
        path.unlink(missing_ok=True)
    else:
        write_text(path, "".join(lines))
        first = ", ".join(line.split()[0] for line in lines[:5])
        _LOG.warning("%d utterances hold nothing for the teacher to read: no transfer for them: %s", len(lines), first)
        _LOG.warning("all of them: %s", path)
    return len(lines)


def get_parser() -> argparse.ArgumentParser:
    """The command line of dump-teacher."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot dump-teacher",
        description="Precompute teacher features of transcripts into Kaldi archives that ESPnet reads as a data "
        "stream. A rerun keeps finished parts, checks them and mends truncated ones.",
        allow_abbrev=False,
    )
    default = DumpOptions(model="")
    parser.add_argument("--model", required=True, help="folder, or name on the Hugging Face hub (bert-base-chinese)")
    parser.add_argument("--text", required=True, type=Path, help="Kaldi text file: `utterance transcript` lines")
    parser.add_argument("--out", required=True, type=Path, help="folder for teacher.scp, teacher.*.ark, teacher.json")
    parser.add_argument(
        "--layer",
        type=int,
        nargs="+",
        default=default.layer,
        help="0 embeddings, 1 … N, or -1 (last) … -N-1; several (4 8 12) are laid side by side",
    )
    parser.add_argument("--special_tokens", action="store_true", help="keep the rows of [CLS] and [SEP]")
    add_options(parser, default.batch_size, "transcripts")
    parser.add_argument(
        "--max_unknown",
        type=float,
        default=default.max_unknown,
        help="share of unknown characters (0 to 1) beyond which the teacher is refused",
    )
    parser.add_argument(
        "--normalise",
        choices=MODES,
        default=default.normalise,
        help="centre or whiten each layer's features by the statistics of these transcripts or of --stats",
    )
    parser.add_argument("--stats", help="another dump's --out folder (the training set's) to take the statistics from")
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default=default.precision,
        help="how to store the features; float16 and int8 are Kaldi's compressed matrices of 16 and 8 bits",
    )
    parser.add_argument("--nlsyms_txt", help="asr.sh's list of symbols such as <NOISE>, which no teacher should read")
    return parser


def options_of(args: argparse.Namespace) -> DumpOptions:
    """The options that :func:`get_parser` has read."""
    given = {name: getattr(args, name) for name in DumpOptions.__dataclass_fields__}
    if isinstance(args.layer, list) and len(args.layer) == 1:
        given["layer"] = args.layer[0]
    return DumpOptions(**given)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python3 -m espnet_gmot dump-teacher`."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    scp = dump(options_of(args), args.text, args.out, overwrite=args.overwrite)
    _LOG.info("finished: %s", scp)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`python3 -m espnet_gmot dump-frontend`: features of a frozen speech encoder, once, into Kaldi archives.

The output folder serves as a data directory's feats.scp (`feats_type extracted`): training then never runs the encoder.
"""

import argparse
import hashlib
import json
import logging
import math
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.hosts.audio import Utterance, read_audio, read_wav_scp
from espnet_gmot.hosts.frontend import HFSpeechFrontend
from espnet_gmot.teacher.archive import check_archive, replacing, write_archive, write_json
from espnet_gmot.version import __version__

_LOG = logging.getLogger(__name__)
# Few enough arks that a reader may keep all of them open, small enough that a killed run loses little.
_MOST_SHARDS, _SMALLEST_SHARD = 128, 16


@dataclass(frozen=True)
class DumpOptions:
    """What dump-frontend computes and how.

    Attributes:
        model: folder or hub name of the speech encoder.
        layer: states to take, as `HFSpeechFrontend` counts them.
        nj: processes.
        batch_size: utterances per forward pass.
        device: torch device of the encoder.
    """

    model: str
    layer: int = -1
    nj: int = 1
    batch_size: int = 4
    device: str = "cpu"

    def check(self) -> None:
        """Raise a ``UserError`` for a value out of range."""
        for name in ("nj", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--device {self.device}: not usable here ({reason}); use cpu") from error

    def frontend(self) -> HFSpeechFrontend:
        """The frozen frontend that these options describe; it takes speech at its model's own rate."""
        return HFSpeechFrontend(self.model, layer=self.layer, fs=None).to(self.device)


@dataclass(frozen=True)
class Shard:
    """One ark's worth of utterances.

    Attributes:
        path: the ark; what is known of it goes to the same name with ``.json``.
        utterances: sorted by length.
        features: what decides the features (weights, layer).
        width: their width.
    """

    path: Path
    utterances: list[Utterance]
    features: dict[str, Any]
    width: int

    @property
    def digest(self) -> str:
        """Identifies the shard's content, as far as wav.scp and the audio files' headers tell."""
        listed = [(utterance.key, utterance.source, utterance.samples) for utterance in self.utterances]
        return hashlib.sha256(json.dumps([self.features, listed]).encode()).hexdigest()

    def finished(self) -> dict[str, Any] | None:
        """What is known of the ark if it is whole and has this very content, otherwise None."""
        note = _read_note(self.path.with_suffix(".json"))
        if note is None or note["digest"] != self.digest:
            return None
        try:
            check_archive(self.path, note["offsets"], self.width)
        except UserError as error:
            _LOG.warning("computing this part again: %s", error)
            return None
        return note


def plan_shards(utterances: list[Utterance], out: Path, features: dict[str, Any], width: int) -> list[Shard]:
    """Distribute utterances over arks, sorted by length so that batches need little padding."""
    ordered = sorted(utterances, key=lambda utterance: utterance.samples)
    size = max(_SMALLEST_SHARD, math.ceil(len(ordered) / _MOST_SHARDS))
    parts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [Shard(out / f"feats.{i}.ark", part, features, width) for i, part in enumerate(parts)]


def dump_shard(frontend: HFSpeechFrontend, shard: Shard, batch_size: int, advance: Callable[[int], Any]) -> None:
    """Compute and write one shard; ``advance`` is told how many utterances each batch had."""
    device = next(frontend.encoder.parameters()).device
    frames: list[int] = []

    def matrices() -> Iterator[tuple[str, np.ndarray]]:
        for start in range(0, len(shard.utterances), batch_size):
            batch = shard.utterances[start : start + batch_size]
            audio = [torch.from_numpy(read_audio(utterance, frontend.sampling_rate)) for utterance in batch]
            sizes = torch.tensor([len(samples) for samples in audio])
            speech = torch.nn.utils.rnn.pad_sequence(audio, batch_first=True)
            with torch.inference_mode():
                feats, lengths = frontend(speech.to(device), sizes.to(device))
            for utterance, matrix, length in zip(batch, feats.float().cpu().numpy(), lengths.tolist(), strict=True):
                if not np.isfinite(matrix[:length]).all():
                    raise UserError(f"{utterance.source} ({utterance.key}): features are not finite; check the audio")
                frames.append(length)
                yield utterance.key, matrix[:length]
            advance(len(batch))

    offsets = write_archive(shard.path, matrices())
    note = {"digest": shard.digest, "features": shard.features, "frames": frames, "offsets": offsets}
    write_json(shard.path.with_suffix(".json"), note)


def dump(options: DumpOptions, wav_scp: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Write the features of every utterance in ``wav_scp``; finished parts of an earlier run are kept.

    Args:
        options: encoder and resources.
        wav_scp: Kaldi wav.scp.
        out: folder for feats.scp and utt2num_frames (in wav.scp's order), feats.N.ark with its note feats.N.json, and
            frontend.json, which says what they are.
        overwrite: replace features of another model or layer instead of refusing.

    Returns:
        feats.scp. It appears last: its presence says that all is there.

    Raises:
        UserError: bad options, audio, model or folder; each message says what to do.
    """
    options.check()
    utterances = read_wav_scp(wav_scp)
    frontend = options.frontend()
    features = {"weights": frontend.encoder.fingerprint, "layer": frontend.layer}
    _clear_other_features(out, features, overwrite)
    shards = plan_shards(utterances, out, features, frontend.output_size())
    todo = [shard for shard in shards if shard.finished() is None]
    done = len(utterances) - sum(len(shard.utterances) for shard in todo)
    _LOG.info("%d utterances, %d already there: %s", len(utterances), done, out)
    if todo:
        (out / "feats.scp").unlink(missing_ok=True)  # never an index of parts that are being replaced
        _run(options, frontend, todo, done)
    return _finish(options, wav_scp, out, [utterance.key for utterance in utterances], shards, frontend.sampling_rate)


def _run(options: DumpOptions, frontend: HFSpeechFrontend, shards: list[Shard], done: int) -> None:
    """Compute ``shards``, longest utterances first: whatever is too long or too big shows at once."""
    from tqdm import tqdm

    total = done + sum(len(shard.utterances) for shard in shards)
    nj = min(options.nj, len(shards))
    with tqdm(total=total, initial=done, desc="dump-frontend", unit="utt", mininterval=1, dynamic_ncols=True) as bar:
        if nj <= 1:
            for shard in reversed(shards):
                dump_shard(frontend, shard, options.batch_size, bar.update)
            return
        threads = max(1, torch.get_num_threads() // nj)
        # spawn: a forked child of a process that has run torch threads may hang
        context = multiprocessing.get_context("spawn")
        with context.Pool(nj, _start_worker, (options, threads)) as pool:
            for size in pool.imap_unordered(_work, reversed(shards)):
                bar.update(size)


_worker: tuple[HFSpeechFrontend, int]


def _start_worker(options: DumpOptions, threads: int) -> None:
    global _worker
    torch.set_num_threads(threads)
    _worker = (options.frontend(), options.batch_size)


def _work(shard: Shard) -> int:
    frontend, batch_size = _worker
    dump_shard(frontend, shard, batch_size, lambda _: None)
    return len(shard.utterances)


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _clear_other_features(out: Path, features: dict[str, Any], overwrite: bool) -> None:
    """Refuse a folder with other features in it, or empty it of them when told to."""
    notes = sorted(out.glob("feats.*.json"))
    others = [note["features"] for path in notes if (note := _read_note(path)) and note["features"] != features]
    if not others:
        return
    if not overwrite:
        changed = " and ".join(key for key in features if others[0].get(key) != features[key])
        raise UserError(
            f"--out {out}: already holds features with another {changed}; choose another --out, or --overwrite"
        )
    for path in [out / "feats.scp", out / "frontend.json", *notes, *out.glob("feats.*.ark")]:
        path.unlink(missing_ok=True)


def _finish(options: DumpOptions, wav_scp: Path, out: Path, keys: list[str], shards: list[Shard], rate: int) -> Path:
    """Write frontend.json, utt2num_frames and, last, feats.scp."""
    import transformers

    places: dict[str, str] = {}
    frames: dict[str, int] = {}
    for shard in shards:
        note = shard.finished()
        if note is None:
            raise UserError(f"{shard.path}: changed while dump-frontend was running; run it again, alone")
        here = [utterance.key for utterance in shard.utterances]
        places.update(zip(here, (f"{shard.path}:{offset}" for offset in note["offsets"]), strict=True))
        frames.update(zip(here, note["frames"], strict=True))
    names = {shard.path.name for shard in shards}
    for stale in (ark for ark in out.glob("feats.*.ark") if ark.name not in names):
        stale.unlink()
        stale.with_suffix(".json").unlink(missing_ok=True)
    info = {
        "format": 1,
        "model": options.model,
        **shards[0].features,
        "width": shards[0].width,
        "sampling_rate": rate,
        "utterances": len(keys),
        "frames": sum(frames.values()),
        "wav_scp": str(wav_scp),
        "versions": {"espnet_gmot": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }
    write_json(out / "frontend.json", info)
    with replacing(out / "utt2num_frames") as handle:
        handle.writelines(f"{key} {frames[key]}\n" for key in keys)
    with replacing(out / "feats.scp") as handle:
        handle.writelines(f"{key} {places[key]}\n" for key in keys)
    return out / "feats.scp"


def get_parser() -> argparse.ArgumentParser:
    """The command line of dump-frontend."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot dump-frontend",
        description="Precompute the features of a frozen Hugging Face speech encoder into Kaldi archives, to train "
        "from with feats_type extracted. A rerun keeps finished parts, checks them and mends truncated ones.",
    )
    default = DumpOptions(model="")
    parser.add_argument("--model", required=True, help="folder, or name on the Hugging Face hub (openai/whisper-base)")
    parser.add_argument("--wav_scp", required=True, type=Path, help="Kaldi wav.scp: `utterance path` lines")
    parser.add_argument("--out", required=True, type=Path, help="folder for feats.scp, feats.*.ark, utt2num_frames")
    parser.add_argument("--layer", type=int, default=default.layer, help="0 input, 1 … N, or -1 (last) … -N-1")
    parser.add_argument("--nj", type=int, default=default.nj, help="processes")
    parser.add_argument("--batch_size", type=int, default=default.batch_size, help="utterances per forward pass")
    parser.add_argument("--device", default=default.device, help="cpu, cuda, cuda:1 …")
    parser.add_argument("--overwrite", action="store_true", help="replace features of another model or layer in --out")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python3 -m espnet_gmot dump-frontend`."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    options = DumpOptions(**{name: getattr(args, name) for name in DumpOptions.__dataclass_fields__})
    scp = dump(options, args.wav_scp, args.out, overwrite=args.overwrite)
    _LOG.info("finished: %s", scp)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

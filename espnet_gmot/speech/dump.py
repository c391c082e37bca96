"""`python3 -m espnet_gmot dump-frontend`: features of a frozen speech encoder, once, into Kaldi archives.

The output folder serves as a data directory's feats.scp (`feats_type extracted`): training then never runs the encoder.
"""

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_gmot.errors import UserError, check_least
from espnet_gmot.files import write_json, write_text
from espnet_gmot.hub import check_device
from espnet_gmot.kaldi.bad import settle_bad
from espnet_gmot.kaldi.shards import Dump, Shard, Worker, add_options
from espnet_gmot.kaldi.wav import Utterance, read_audio, read_utterances
from espnet_gmot.speech.encoders import FrozenLayer
from espnet_gmot.version import __version__

_LOG = logging.getLogger(__name__)
_MOST_SHARDS, _SMALLEST_SHARD = 128, 16  # see `espnet_gmot.kaldi.shards.Dump`


@dataclass(frozen=True)
class DumpOptions:
    """What dump-frontend computes and how.

    Attributes:
        model: folder or hub name of the speech encoder.
        layer: states to take, as `SpeechEncoder.index` counts them.
        pool: neighbouring frames that are averaged into one.
        nj: processes.
        batch_size: utterances per forward pass.
        device: torch device of the encoder.
        max_bad: how many bad utterances (cut, silent, …) may be skipped.
    """

    model: str
    layer: int = -1
    pool: int = 1
    nj: int = 1
    batch_size: int = 4
    device: str = "cpu"
    max_bad: int = 0

    def check(self) -> None:
        """Raise a ``UserError`` for a value out of range."""
        check_least(self, 1, "pool", "nj", "batch_size")
        check_device(self.device)

    def frontend(self) -> FrozenLayer:
        """The frozen layer that these options describe; it takes speech at its model's own rate."""
        return FrozenLayer(self.model, self.layer, self.device, self.pool)

    def worker(self) -> Worker:
        """Computes shards with a frontend of its own."""
        return partial(dump_shard, self.frontend(), self.batch_size)


def dump_shard(frontend: FrozenLayer, batch_size: int, shard: Shard, advance: Callable[[int], Any]) -> None:
    """Compute and write one shard of utterances; ``advance`` is told how many each batch had."""
    known: dict[str, Any] = {"frames": [], "bad": {}}
    rate = frontend.encoder.sampling_rate

    def matrices() -> Iterator[tuple[str, np.ndarray]]:
        """Keys and features, batch by batch."""
        for start in range(0, len(shard.items), batch_size):
            batch = list(_readable(shard.items[start : start + batch_size], rate, known["bad"]))
            if batch:
                yield from compute(*zip(*batch, strict=True))
            advance(min(batch_size, len(shard.items) - start))

    def compute(keys: Sequence[str], audio: Sequence[torch.Tensor]) -> Iterator[tuple[str, np.ndarray]]:
        """Keys and features of one batch."""
        sizes = torch.tensor([len(samples) for samples in audio])
        feats, lengths = frontend(torch.nn.utils.rnn.pad_sequence(list(audio), batch_first=True), sizes)
        for key, matrix, length in zip(keys, feats.float().cpu().numpy(), lengths.tolist(), strict=True):
            if length == 0 or not np.isfinite(matrix[:length]).all():
                known["bad"][key] = "its features are not finite" if length else "too short for the encoder: no frame"
                continue
            known["frames"].append(length)
            yield key, matrix[:length]

    shard.write(matrices(), known)


def _readable(utterances: Iterable[Utterance], rate: int, bad: dict[str, str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Utterances and their audio; what can't be read goes to ``bad`` with the reason."""
    for utterance in utterances:
        try:
            yield utterance.key, torch.from_numpy(read_audio(utterance.source, rate))
        except UserError as error:
            bad[utterance.key] = str(error)


def _is_done(shard: Shard, rate: int) -> bool:
    """Whether a shard is there, and what was bad when it was computed still can't be read."""
    note = shard.finished()
    if note is None:
        return False
    once_bad = [utterance for utterance in shard.items if utterance.key in note.get("bad", {})]
    return not any(_readable(once_bad, rate, {}))


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
    utterances, bad = read_utterances(wav_scp)
    total = len(utterances) + len(bad)
    settle_bad(out, bad, total, options.max_bad)
    frontend = options.frontend()
    features = {"weights": frontend.encoder.fingerprint, "layer": frontend.layer}
    if options.pool > 1:
        features["pool"] = options.pool
    folder = Dump("dump-frontend", out, "feats", _MOST_SHARDS, _SMALLEST_SHARD, options.device)
    folder.clear_others(features, overwrite, more=("feats.scp", "frontend.json"))
    ordered = sorted(utterances, key=lambda utterance: utterance.samples)
    # as far as wav.scp and the audio files' headers tell
    content = [(utterance.key, utterance.source, utterance.samples) for utterance in ordered]
    shards = folder.plan(ordered, content, features, frontend.encoder.width)
    rate = frontend.encoder.sampling_rate
    todo = [shard for shard in shards if not _is_done(shard, rate)]
    done = len(utterances) - sum(len(shard.items) for shard in todo)
    _LOG.info("%d utterances, %d already there: %s", len(utterances), done, out)
    with folder.filling("feats.scp", todo):
        folder.run(todo, partial(dump_shard, frontend, options.batch_size), options.worker, options.nj, done)
        for note in folder.collect(shards):
            bad |= note.get("bad", {})
        settle_bad(out, bad, total, options.max_bad)
        keys = [utterance.key for utterance in utterances if utterance.key not in bad]
        return _finish(options, wav_scp, keys, folder, shards, rate)


def _finish(options: DumpOptions, wav_scp: Path, keys: list[str], folder: Dump, shards: list[Shard], rate: int) -> Path:
    """Write frontend.json, utt2num_frames and, last, feats.scp."""
    import transformers

    places: dict[str, str] = {}
    frames: dict[str, int] = {}
    for shard, note in zip(shards, folder.collect(shards), strict=True):
        here = [utterance.key for utterance in shard.items if utterance.key not in note.get("bad", {})]
        places.update(zip(here, (f"{shard.path}:{offset}" for offset in note["offsets"]), strict=True))
        frames.update(zip(here, note["frames"], strict=True))
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
    write_json(folder.out / "frontend.json", info)
    write_text(folder.out / "utt2num_frames", "".join(f"{key} {frames[key]}\n" for key in keys))
    write_text(folder.out / "feats.scp", "".join(f"{key} {places[key]}\n" for key in keys))
    return folder.out / "feats.scp"


def get_parser() -> argparse.ArgumentParser:
    """The command line of dump-frontend."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot dump-frontend",
        description="Precompute the features of a frozen Hugging Face speech encoder into Kaldi archives, to train "
        "from with feats_type extracted. A rerun keeps finished parts, checks them and mends truncated ones.",
        allow_abbrev=False,
    )
    default = DumpOptions(model="")
    parser.add_argument("--model", required=True, help="folder, or name on the Hugging Face hub (openai/whisper-base)")
    parser.add_argument("--wav_scp", required=True, type=Path, help="Kaldi wav.scp: `utterance path` lines")
    parser.add_argument("--out", required=True, type=Path, help="folder for feats.scp, feats.*.ark, utt2num_frames")
    parser.add_argument("--layer", type=int, default=default.layer, help="0 input, 1 … N, or -1 (last) … -N-1")
    parser.add_argument("--pool", type=int, default=default.pool, help="average so many neighbouring frames into one")
    add_options(parser, default.batch_size, "utterances")
    parser.add_argument(
        "--max_bad",
        type=int,
        default=default.max_bad,
        help="skip up to so many bad utterances (cut, silent, stereo …), listed in OUT/bad_utterances",
    )
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

"""``prepare-data``: AISHELL-1 (tree, archive or download) to Kaldi data directories data/{train,dev,test}."""

import argparse
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from espnet_gmot.corpora.download import download
from espnet_gmot.corpora.unpack import CORPUS, is_half, unpack
from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text, writing
from espnet_gmot.kaldi.bad import settle_bad
from espnet_gmot.kaldi.leaks import refuse_leaks
from espnet_gmot.kaldi.parallel import cores, each
from espnet_gmot.kaldi.tables import read_transcripts, spk2utt, write_table
from espnet_gmot.kaldi.wav import count_samples
from espnet_gmot.words import split_words

SPLITS = ("train", "dev", "test")
URL = "https://www.openslr.org/resources/33/data_aishell.tgz"
SIZE = 15582913665
MD5 = "2f494334227864a8a8fec932999db9d8"
TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"
_LOG = logging.getLogger(__name__)
# A space beside a Chinese character, or any other from general punctuation on but full-width letters and digits.
_BESIDE = r"[\u2000-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\U0010ffff]"
_NOT_BETWEEN_WORDS = re.compile(rf" (?={_BESIDE})|(?<={_BESIDE}) ")
_UNTRANSCRIBED = 0.01  # AISHELL-1 itself has no transcript for 325 of its 141,925 recordings


def locate(data: str | Path, unpack_to: str | Path | None = None) -> Path:
    """Find the corpus tree; unpack it first if only the archive is there.

    Args:
        data: ``data_aishell``, a folder that holds ``data_aishell`` or ``data_aishell.tgz``, or an archive.
        unpack_to: folder that receives ``data_aishell`` where it must be unpacked; by default ``data`` if that is a
            folder, else ``downloads``.

    Returns:
        The folder with ``wav`` and ``transcript``. One that is there is taken before an archive beside it, but for one
        whose unpacking was interrupted.

    Raises:
        UserError: nothing of the kind is at ``data``.
    """
    data = Path(data)
    if data.is_file():
        return unpack(data, unpack_to or "downloads")
    if (tree := _tree(data)) is not None:
        return tree
    if (data / f"{CORPUS}.tgz").is_file():
        return unpack(data / f"{CORPUS}.tgz", unpack_to or data)
    for tree in (data, data / CORPUS):
        if is_half(tree):
            raise UserError(f"--data {tree}: half unpacked: give its archive once more to unpack the rest")
        if (tree / "wav").is_dir():
            return tree
    if not data.exists():
        raise UserError(f"--data {data}: no such file or folder; give data_aishell, data_aishell.tgz or --data_url")
    raise UserError(f"--data {data}: holds neither {CORPUS}/wav nor {CORPUS}.tgz; give the folder above {CORPUS}")


def _tree(data: Path) -> Path | None:
    """An unpacked corpus at or in a folder; one that is half unpacked, its speakers archives still, is none."""
    for tree in (data, data / CORPUS):
        parts = all((tree / "wav" / split).is_dir() for split in SPLITS) and (tree / TRANSCRIPT).is_file()
        if parts and not is_half(tree):
            return tree
    return None


def read_corpus(corpus: Path) -> dict[str, str]:
    """Read AISHELL-1's transcripts, whose spaces stand between words: those between Chinese characters go.

    Spaces between two words in Latin letters or digits stay, or the words would become one; that is said, with a count.

    Raises:
        UserError: no such file, an utterance that occurs twice, or an empty transcript.
    """
    path = corpus / TRANSCRIPT
    texts = {key: _NOT_BETWEEN_WORDS.sub("", text) for key, text in read_transcripts(path).items()}
    if apart := [key for key, text in texts.items() if " " in text]:
        _LOG.warning(
            "%s: %d transcripts hold Latin words or numbers side by side, the first is %s: a space stays between them "
            "(<space> among characters)",
            path,
            len(apart),
            apart[0],
        )
    return texts


def match(corpus: Path, texts: dict[str, str], *, drop_missing: bool = False) -> dict[str, dict[str, Path]]:
    """Pair recordings with transcripts.

    Args:
        corpus: folder with ``wav/{train,dev,test}/SPEAKER/UTTERANCE.wav``.
        texts: transcripts by utterance.
        drop_missing: leave out what lacks its partner instead of raising.

    Returns:
        For each split, path by utterance.

    Raises:
        UserError: transcripts without a recording, or more than 1 % of the recordings without a transcript.
    """
    found = {split: _recordings(corpus / "wav" / split) for split in SPLITS}
    for split, paths in found.items():
        if not paths:
            raise UserError(f"{corpus}/wav/{split}: holds no SPEAKER/UTTERANCE.wav; is the corpus complete?")
    recorded = set().union(*found.values())
    silent = sorted(texts.keys() - recorded)
    untold = sorted(recorded - texts.keys())
    if silent and not drop_missing:
        raise UserError(
            f"{corpus}/wav: the recordings of {_some(silent, 'transcript')} missing; fetch them, or --missing drop"
        )
    if len(untold) > _UNTRANSCRIBED * len(recorded) and not drop_missing:
        raise UserError(
            f"{corpus}/{TRANSCRIPT}: the transcripts of {_some(untold, 'recording')} missing; add, or --missing drop"
        )
    if silent or untold:
        print(f"left out: {len(untold)} recordings without a transcript, {len(silent)} transcripts without a recording")
    kept = {split: {key: path for key, path in paths.items() if key in texts} for split, paths in found.items()}
    for split, paths in kept.items():
        if not paths:
            raise UserError(f"{corpus}/wav/{split}: no recording has a transcript; do the ids agree?")
    return kept


def _recordings(folder: Path) -> dict[str, Path]:
    """Recordings of a split by utterance; macOS's ``._x.wav`` are none."""
    paths = (path for path in folder.glob("*/*") if path.suffix.lower() == ".wav" and not path.name.startswith("."))
    found: dict[str, Path] = {}
    for path in sorted(paths):
        if path.stem in found:
            raise UserError(f"{path}: {found[path.stem]} is the same utterance: remove one of them")
        found[path.stem] = path
    return found


def find_bad(paths: dict[str, Path], split: str) -> dict[str, str]:
    """Check every wav header against the file's size; return what is wrong by utterance."""
    return each(count_samples, {key: str(path) for key, path in paths.items()}, cores(), f"check {split}")[1]


def thin(paths: dict[str, Path], count: int | None) -> dict[str, Path]:
    """Keep ``count`` utterances, evenly spread over the sorted ids (hence over the speakers); None keeps all."""
    keys = sorted(paths)
    if count is None or count >= len(keys):
        return {key: paths[key] for key in keys}
    return {key: paths[key] for key in (keys[index * len(keys) // count] for index in range(count))}


def write_split(directory: Path, paths: dict[str, Path], texts: dict[str, str]) -> None:
    """Write wav.scp, text, utt2spk and spk2utt of one split (speaker = the recording's folder)."""
    speakers = {key: path.parent.name for key, path in paths.items()}
    write_table(directory / "wav.scp", {key: str(path.absolute()) for key, path in paths.items()})
    write_table(directory / "text", {key: texts[key] for key in paths})
    write_table(directory / "utt2spk", speakers)
    write_table(directory / "spk2utt", spk2utt(speakers))


def _some(names: Sequence[str], noun: str) -> str:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"1 {noun} ({shown}) is" if len(names) == 1 else f"{len(names)} {noun}s ({shown}) are"


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot prepare-data",
        description="AISHELL-1 to Kaldi data directories: OUT/{train,dev,test}/{wav.scp,text,utt2spk,spk2utt}.",
    )
    parser.add_argument(
        "--data",
        default=os.environ.get("AISHELL") or "downloads",
        help="data_aishell, the folder above it, data_aishell.tgz, or (with --data_url) the folder to download into; "
        "default: $AISHELL, else 'downloads'",
    )
    parser.add_argument(
        "--data_url",
        default=os.environ.get("AISHELL_URL") or None,
        help=f"download the archive first; 'openslr' stands for {URL} ({SIZE / 1e9:.1f} GB); default: $AISHELL_URL",
    )
    parser.add_argument("--data_size", type=int, help="expected bytes of --data_url (known for openslr)")
    parser.add_argument("--data_md5", help="expected MD5 of --data_url (known for openslr)")
    parser.add_argument(
        "--unpack_to",
        help="where an archive is unpacked; default: the folder that --data gives, or downloads where it gives a file",
    )
    parser.add_argument("--out", default="data", help="folder that receives train, dev and test; default: data")
    parser.add_argument(
        "--max_utts",
        type=_count,
        default=os.environ.get("GMOT_MAX_UTTS") or None,
        help="keep at most so many utterances of each split, for a quick run; default: $GMOT_MAX_UTTS, else all",
    )
    _add_frontend_options(parser)
    parser.add_argument(
        "--missing",
        choices=("error", "drop"),
        default="error",
        help="what to do about missing partners; default: error",
    )
    parser.add_argument(
        "--max_bad",
        type=int,
        default=os.environ.get("GMOT_MAX_BAD") or 0,
        help="skip up to so many cut or unreadable recordings of train and of dev, listed in OUT/SET/bad_utterances; "
        "default: $GMOT_MAX_BAD, else 0",
    )
    return parser


def _add_frontend_options(parser: argparse.ArgumentParser) -> None:
    frontend = parser.add_argument_group("frozen features (for --feats_type extracted)")
    frontend.add_argument(
        "--frontend_model",
        default=os.environ.get("GMOT_FRONTEND_MODEL") or None,
        help="compute this speech encoder's features into OUT/SET/feats.scp; default: $GMOT_FRONTEND_MODEL",
    )
    frontend.add_argument(
        "--frontend_layer",
        default=os.environ.get("GMOT_FRONTEND_LAYER") or None,
        help="its layer; default: $GMOT_FRONTEND_LAYER, else dump-frontend's",
    )
    frontend.add_argument(
        "--frontend_opts",
        default=os.environ.get("GMOT_FRONTEND_OPTS", ""),
        help="more options for dump-frontend, e.g. '--device cuda'; default: $GMOT_FRONTEND_OPTS",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return int(text)


def fetch(url: str, folder: Path, size: int | None, md5: str | None) -> None:
    """Download the archive into ``folder`` unless the unpacked corpus is already there."""
    if (folder / CORPUS / ".complete").is_file() or _tree(folder) is not None:
        return
    if url == "openslr" or url == URL:
        url, size, md5 = URL, size or SIZE, md5 or MD5
    elif not md5:
        print(f"warning: no --data_md5 for {url}: the download's content can't be verified")
    if folder.is_file():
        raise UserError(f"--data {folder}: with --data_url this must be a folder, not a file")
    download(url, folder / f"{CORPUS}.tgz", size=size, md5=md5)


def main(argv: list[str] | None = None) -> int:
    """Run the command; raises UserError on bad data."""
    args = get_parser().parse_args(argv)
    with writing():
        prepare(args)
    return 0


def prepare(args: argparse.Namespace) -> None:
    """Fetch, unpack, check and write, as far as each is needed."""
    if args.data_url:
        fetch(args.data_url, Path(args.data), args.data_size, args.data_md5)
    corpus = locate(args.data, args.unpack_to)
    texts = read_corpus(corpus)
    splits = match(corpus, texts, drop_missing=args.missing == "drop")
    splits = {split: thin(paths, args.max_utts) for split, paths in splits.items()}
    refuse_leaks({split: {key: str(path) for key, path in paths.items()} for split, paths in splits.items()}, "train")
    for split, paths in splits.items():
        bad = find_bad(paths, split)
        settle_bad(Path(args.out) / split, bad, len(paths), args.max_bad, whole=split == "test")
        splits[split] = {key: path for key, path in paths.items() if key not in bad}
    for split, paths in splits.items():
        write_split(Path(args.out) / split, paths, texts)
    counts = ", ".join(f"{split} {len(paths)}" for split, paths in splits.items())
    print(f"{args.out}: {counts} utterances", flush=True)
    if args.frontend_model:
        for split in SPLITS:
            dump_features(Path(args.out) / split, args)


def dump_features(directory: Path, args: argparse.Namespace) -> None:
    """Compute a frozen encoder's features of one set into ``directory/frontend`` and list them in feats.scp."""
    from espnet_gmot.speech import dump as dump_frontend

    out = directory / "frontend"
    command = ["--model", args.frontend_model, "--wav_scp", f"{directory}/wav.scp", "--out", str(out)]
    if args.frontend_layer:
        command += ["--layer", args.frontend_layer]
    if args.max_bad and directory.name != "test":
        command += ["--max_bad", str(args.max_bad)]
    dump_frontend.main([*command, *split_words("--frontend_opts", args.frontend_opts)])
    write_text(directory / "feats.scp", (out / "feats.scp").read_text(encoding="utf-8"))

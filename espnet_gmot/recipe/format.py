"""Stages 3 and 4: data/ → dump/TYPE/org (formatted), then dump/TYPE (without short, long and empty utterances)."""

import struct
from pathlib import Path

from tqdm import tqdm

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.tables import read_data_dir, read_table, read_transcripts, write_data_dir
from espnet_gmot.kaldi.wav import sampling_rate
from espnet_gmot.recipe.audio import format_wav_scp
from espnet_gmot.recipe.layout import Layout

_FRAME_SHIFT_MS = 10  # asr.sh's assumption for every kind of features without conf/fbank.conf


def format_set(layout: Layout, name: str, processes: int) -> None:
    """Stage 3 for one set: its tables, with formatted audio or described features."""
    args = layout.args
    source, target = Path("data") / name, layout.formatted(name)
    tables = read_data_dir(source)
    if args.feats_type == "raw":
        fs = sampling_rate(args.fs, "--fs")
        made = format_wav_scp(
            source / "wav.scp", target, audio_format=args.audio_format, fs=fs, nj=args.nj, processes=processes
        )
        write_text(target / "audio_format", args.audio_format + "\n")
    else:
        made, width = describe_features(source / "feats.scp")
        write_text(target / "feats_dim", f"{width}\n")
    everyone = set(tables["utt2spk"])
    kept = write_data_dir(target, tables | made)
    if kept < len(everyone):
        lacking = sorted(everyone - set.intersection(*(set(table) for table in (tables | made).values())))
        message = (
            f"{source}: {len(lacking)} of {len(everyone)} utterances lack a line in a table: {', '.join(lacking[:3])}"
        )
        if name in layout.test_sets:
            raise UserError(f"{message} …; a test set must be whole, or its CER is another's: complete its tables")
        print(f"{message} …; left out", flush=True)
    write_text(target / "feats_type", args.feats_type + "\n")


def describe_features(source: Path) -> tuple[dict[str, dict[str, str]], int]:
    """Measure the features of feats.scp.

    Returns:
        The table feats_shape (``frames,width`` by utterance) and the width.

    Raises:
        UserError: feats.scp is absent or unreadable, or the widths differ.
    """
    import kaldiio

    if not source.is_file():
        raise UserError(f"{source}: no such file; stage 1 makes it, given --frontend_model and --feats_type extracted")
    shapes: dict[str, str] = {}
    widths: set[int] = set()
    for key, entry in tqdm(
        read_table(source).items(), desc=f"shapes {source.parent.name}", unit="utt", mininterval=1.0
    ):
        try:
            frames, width = kaldiio.load_mat(entry).shape
        except (OSError, ValueError, EOFError, AssertionError, struct.error) as error:
            # kaldiio has no error of its own: what a cut archive raises depends on where it was cut
            raise UserError(f"{source}: {key}: {entry}: unreadable features ({error}); make them again") from error
        shapes[key] = f"{frames},{width}"
        widths.add(width)
    if len(widths) != 1:
        raise UserError(f"{source}: features of different widths ({sorted(widths)}); make them again with one model")
    return {"feats_shape": shapes}, widths.pop()


def filter_set(layout: Layout, name: str) -> None:
    """Stage 4 for one set: drop utterances that are too short, too long, or without text."""
    args = layout.args
    source, target = layout.dump / "org" / name, layout.dump / name
    tables = read_data_dir(source)
    if args.feats_type == "raw":
        table, rate = "utt2num_samples", float(sampling_rate(args.fs, "--fs"))
    else:
        table, rate = "feats_shape", 1000.0 / _FRAME_SHIFT_MS
    if table not in tables:
        raise UserError(f"{source / table}: no such file; run stage 3 first")
    lengths = tables[table]
    shortest, longest = (int(float(limit) * rate) for limit in (args.min_wav_duration, args.max_wav_duration))
    tables[table] = {key: value for key, value in lengths.items() if shortest < int(value.split(",")[0]) < longest}
    tables["text"] = {key: text for key, text in tables["text"].items() if text}
    left = write_data_dir(target, tables)
    for extra in ("feats_type", "audio_format", "feats_dim"):
        if (source / extra).is_file():
            write_text(target / extra, (source / extra).read_text(encoding="utf-8"))
    if left < len(lengths):
        print(f"{target}: {left} of {len(lengths)} utterances kept", flush=True)


def write_lm_text(layout: Layout) -> None:
    """Stage 4's last step: dump/TYPE/lm_train.txt out of all language model texts, without empty lines."""
    lines = []
    for path in layout.lm_train_texts():
        suffix = path.name.replace("text", "", 1)
        lines += [f"{key}{suffix} {text}\n" for key, text in read_transcripts(path, allow_empty=True).items() if text]
    write_text(layout.dump / "lm_train.txt", "".join(lines))

"""Stages 3 and 4: data/ → dump/TYPE/org (formatted), then dump/TYPE (without short, long and empty utterances)."""

import os
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.ark import place_of, read_matrix
from espnet_gmot.kaldi.bad import LIST, settle_bad
from espnet_gmot.kaldi.leaks import refuse_leaks
from espnet_gmot.kaldi.parallel import each
from espnet_gmot.kaldi.tables import read_data_dir, read_table, read_transcripts, write_data_dir, write_table
from espnet_gmot.kaldi.wav import read_wav_scp, sampling_rate
from espnet_gmot.marks import MARK, digest_of, is_complete, set_complete
from espnet_gmot.recipe.audio import format_wav_scp
from espnet_gmot.recipe.layout import Layout

_FRAME_SHIFT_MS = 10  # asr.sh's assumption for every kind of features without conf/fbank.conf


def format_set(layout: Layout, name: str, processes: int) -> None:
    """Stage 3 for one set: its tables, with formatted audio or described features."""
    args = layout.args
    source, target = Path("data") / name, layout.formatted(name)
    tables = read_data_dir(source)
    if "text" not in tables:
        raise UserError(f"{source}/text: no such file; training needs transcripts, and so does scoring")
    if args.feats_type == "raw":
        fs = sampling_rate(args.fs, "--fs")
        read_wav_scp(source / "wav.scp")  # names what is wrong with it
        made, bad = format_wav_scp(
            source / "wav.scp", target, audio_format=args.audio_format, fs=fs, nj=args.nj, processes=processes
        )
        write_text(target / "audio_format", args.audio_format + "\n")
    else:
        made, bad, width = describe_features(source / "feats.scp", target / "logs/features", processes)
        write_text(target / "feats_dim", f"{width}\n")
    everyone = set().union(*tables.values())
    for key in sorted(everyone - bad.keys()):
        if lacking := [name for name, table in (tables | made).items() if key not in table]:
            bad[key] = f"has no line in {source}/{', '.join(lacking)}"
    settle_bad(target, bad, len(everyone), args.max_bad, whole=layout.is_scored(name))
    good = {name: {key: table[key] for key in table.keys() - bad.keys()} for name, table in (tables | made).items()}
    write_data_dir(target, good)
    write_text(target / "feats_type", args.feats_type + "\n")


def describe_features(
    source: Path, kept: Path, processes: int = 1
) -> tuple[dict[str, dict[str, str]], dict[str, str], int]:
    """Measure the features of feats.scp, so many processes at a time.

    Args:
        source: feats.scp.
        kept: folder for what was measured: where all could be read, and neither table nor archives have changed since,
            they aren't read again.
        processes: how many at a time.

    Returns:
        The table feats_shape (``frames,width`` by utterance), why utterances are not in it, and the width.

    Raises:
        UserError: feats.scp is absent, no features can be read, or the widths differ.
    """
    if not source.is_file():
        raise UserError(f"{source}: no such file; stage 1 makes it, given --frontend_model and --feats_type extracted")
    entries, table = read_table(source), kept / "feats_shape"
    bad: dict[str, str] = {}
    places = sorted(filter(os.path.isfile, {place_of(entry)[0] for entry in entries.values()}))
    mark = digest_of((f"{key} {entry}" for key, entry in entries.items()), places)
    if is_complete(kept, mark) and table.is_file():
        shapes = read_table(table)
    else:
        (kept / MARK).unlink(missing_ok=True)
        shapes, bad = each(_shape, entries, processes, f"shapes {source.parent.name}")
        if not shapes:
            raise UserError(
                f"{source}: none of {len(bad)} features can be read, the first is {min(bad)}: {bad[min(bad)]}"
            )
        if not bad:  # what is bad may be mended without a trace
            write_table(table, shapes)
            set_complete(kept, mark)
    widths = {int(shape.partition(",")[2]) for shape in shapes.values()}
    if len(widths) != 1:
        raise UserError(f"{source}: features of different widths ({sorted(widths)}); make them again with one model")
    return {"feats_shape": shapes}, bad, widths.pop()


def _shape(entry: str) -> str:
    frames, width = read_matrix(entry).shape
    return f"{frames},{width}"


def check_leaks(layout: Layout) -> None:
    """Refuse recordings of the training set that another set holds too.

    Raises:
        UserError: see :func:`espnet_gmot.kaldi.leaks.refuse_leaks`.
    """
    names = [layout.train_set, layout.valid_set, *layout.test_sets]
    tables = {f"data/{name}": Path("data") / name / "wav.scp" for name in names}
    refuse_leaks(
        {name: read_table(path) for name, path in tables.items() if path.is_file()}, f"data/{layout.train_set}"
    )


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
    lengths = {key: int(value.split(",")[0]) for key, value in tables[table].items()}
    shortest, longest = (int(float(limit) * rate) for limit in (args.min_wav_duration, args.max_wav_duration))
    dropped, bad = {}, {}
    for key, length in lengths.items():
        text = tables["text"].get(key, "")
        if not text:
            dropped[key] = "no transcript"
        elif length <= shortest:
            dropped[key] = f"{length / rate:g} s: not longer than --min_wav_duration {args.min_wav_duration}"
        elif length >= longest:
            dropped[key] = f"{length / rate:g} s: not shorter than --max_wav_duration {args.max_wav_duration}"
        elif args.token_type == "char" and length / rate * 1000 / _FRAME_SHIFT_MS < len(text):
            bad[key] = f"{length / rate:g} s: fewer frames than its {len(text)} characters, which CTC can't align"
    settle_bad(target, bad, len(lengths), args.max_bad, more=dropped)
    for name in tables:
        tables[name] = {key: value for key, value in tables[name].items() if key not in dropped and key not in bad}
    left = write_data_dir(target, tables)
    for extra in ("feats_type", "audio_format", "feats_dim"):
        if (source / extra).is_file():
            write_text(target / extra, (source / extra).read_text(encoding="utf-8"))
    if left < len(lengths):
        print(f"{target}: {left} of {len(lengths)} utterances kept, the others are in {target}/{LIST}", flush=True)


def write_lm_text(layout: Layout) -> None:
    """Stage 4's last step: dump/TYPE/lm_train.txt out of all language model texts, without empty lines."""
    lines = []
    for path in layout.lm_train_texts():
        suffix = path.name.replace("text", "", 1)
        lines += [f"{key}{suffix} {text}\n" for key, text in read_transcripts(path, allow_empty=True).items() if text]
    write_text(layout.dump / "lm_train.txt", "".join(lines))

"""Stage 13: ref.trn, hyp.trn and result.txt for characters, words and pieces; sclite where installed, else jiwer."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.parallel import LIGHT, cores, in_chunks
from espnet_gmot.kaldi.tables import read_table, read_transcripts
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.token_list import tokenizer
from espnet_gmot.report.cer import Counts, align, read_trn, summary_tables
from espnet_gmot.report.speakers import PARENTHESES, speakers

_SIGNS = str.maketrans("{};*", "｛｝；＊")
KINDS = {"char": "cer", "word": "wer", "bpe": "ter"}
"""Units that are scored, and the names of their error rates."""


def find_sclite() -> str | None:
    """Path of sclite: on PATH, or where Debian's package sctk puts it; None if absent."""
    debian = "/usr/lib/sctk/bin/sclite"
    return shutil.which("sclite") or (debian if os.access(debian, os.X_OK) else None)


def score(layout: Layout) -> None:
    """Score every decoded set; print and write one result.txt for each unit."""
    for name in layout.decoded_sets():
        decoded, folders = layout.asr_exp / layout.inference_tag / name, []
        for unit, rate in KINDS.items():
            if unit != "bpe" or Path(layout.bpemodel).is_file():
                folders.append(decoded / f"score_{rate}")
                write_trn(layout, unit, layout.dump / name, decoded, folders[-1])
        # threads that wait for sclite, one on each core; without it, jiwer takes all cores for one folder
        with ThreadPoolExecutor(cores() if find_sclite() else 1) as pool:
            texts = pool.map(partial(score_folder, options=layout.args.score_opts), folders)
            for folder, text in zip(folders, texts, strict=True):
                lines = [line for line in text.splitlines() if "SPKR" in line or "Avg" in line][:2]
                print(f"{folder}/result.txt", *lines, sep="\n", flush=True)


def write_trn(layout: Layout, unit: str, data: Path, decoded: Path, folder: Path) -> None:
    """Write references and hypotheses as ``tokens<TAB>(speaker-utterance)``.

    Raises:
        UserError: nothing was decoded, or utterances lack a hypothesis.
    """
    references, hypotheses = (read_transcripts(folder / "text", allow_empty=True) for folder in (data, decoded))
    speakers = read_table(data / "utt2spk")
    missing = sorted(references.keys() - hypotheses.keys())
    if missing:
        names = ", ".join(missing[:3])
        raise UserError(
            f"{decoded}/text: {len(missing)} of {len(references)} utterances lack a hypothesis ({names}); run stage 12"
        )
    for name, texts, cleaner in (
        ("ref.trn", references, layout.args.cleaner),
        ("hyp.trn", hypotheses, layout.args.hyp_cleaner),
    ):
        tokenize = tokenizer(layout, unit, cleaner, scoring=True)
        write_trn_file(folder / name, {key: texts[key] for key in references}, speakers, tokenize)


def write_trn_file(
    path: Path, texts: Mapping[str, str], speakers: Mapping[str, str], tokenize: Callable[[str], list[str]]
) -> None:
    """Write one trn file, sorted by utterance.

    What sclite takes for its own signs is written in full-width forms: braces (alternatives, or a crash), a lone ``@``
    (nothing), ``;;`` and ``**`` (comments); parentheses in ids become square brackets.
    """
    table = {key: (f"{speakers[key]}-{key}".translate(PARENTHESES), texts[key]) for key in sorted(texts)}
    if len({name for name, _ in table.values()}) < len(table):
        raise UserError(f"{path}: two ids are alike once their parentheses are brackets: rename one of them")
    write_text(path, "".join(in_chunks(partial(_trn_lines, tokenize), table, cores(), LIGHT)))


def _trn_lines(tokenize: Callable[[str], list[str]], items: list[tuple[str, tuple[str, str]]]) -> str:
    lines = []
    for _, (name, text) in items:
        words = " ".join("＠" if token == "@" else token.translate(_SIGNS) for token in tokenize(text))
        lines.append(f"{words}\t({name})\n")
    return "".join(lines)


def score_folder(folder: Path, options: str = "") -> str:
    """Score ``folder``'s ref.trn and hyp.trn into result.txt and return its text.

    Args:
        folder: holds ref.trn and hyp.trn.
        options: more options for sclite.

    Raises:
        UserError: sclite fails, or options are given and sclite is not installed.
    """
    sclite = find_sclite()
    if sclite:
        command = [sclite, *shlex.split(options), "-r", f"{folder}/ref.trn", "trn", "-h", f"{folder}/hyp.trn", "trn"]
        done = subprocess.run([*command, "-i", "rm", "-o", "all", "stdout"], capture_output=True, check=False)
        text = done.stdout.decode(errors="replace")
        if done.returncode or "Sum/Avg" not in text:
            reason = " ".join(done.stderr.decode(errors="replace").split()) or f"status {done.returncode}"
            raise UserError(f"{folder}: sclite failed: {reason}")
    elif options:
        raise UserError(f"--score_opts {options!r}: needs sclite; install Debian's sctk")
    else:
        text = result_without_sclite(folder)
    write_text(folder / "result.txt", text)
    return text


def result_without_sclite(folder: Path) -> str:
    """Count errors with jiwer and lay them out as sclite does: percentages, then raw counts, by speaker."""
    references, hypotheses = read_trn(folder / "ref.trn"), read_trn(folder / "hyp.trn")
    by_speaker: dict[str, Counts] = {}
    who = speakers(folder, references)
    total = Counts()
    pairs = {key: (reference, hypotheses[key]) for key, reference in references.items()}
    for key, counts in (found for part in in_chunks(_aligned, pairs, cores(), LIGHT) for found in part):
        by_speaker[who[key]] = by_speaker.get(who[key], Counts()) + counts
        total += counts
    note = (
        "Counted by jiwer (plain edit distance): sclite is not installed. It weighs alignments differently: its\n"
        "split of the errors into substitutions, deletions and insertions may be another.\n\n"
    )
    return note + summary_tables(by_speaker, total)


def _aligned(items: list[tuple[str, tuple[list[str], list[str]]]]) -> list[tuple[str, Counts]]:
    return [(key, align(reference, hypothesis)) for key, (reference, hypothesis) in items]

"""Error counts: sub, del, ins of token sequences, as lists, trn files and sclite's tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.tables import read_lines


@dataclass(frozen=True)
class Counts:
    """Errors of some sentences.

    Attributes:
        sentences, tokens: size of the reference.
        correct, substitutions, deletions, insertions: of the alignment.
        wrong: sentences with any error.
    """

    sentences: int = 0
    tokens: int = 0
    correct: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    wrong: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference token, a fraction (0.25 is 25 %); nan without references."""
        return self.errors / self.tokens if self.tokens else float("nan")


@dataclass(frozen=True)
class Edit:
    """One step of an alignment.

    Attributes:
        kind: ``correct``, ``substitution``, ``deletion`` or ``insertion``.
        place: index of the reference token; of an insertion, how many reference tokens stand before it.
        reference: the token; empty for an insertion.
        hypothesis: the token; empty for a deletion.
    """

    kind: str
    place: int
    reference: str
    hypothesis: str


def written(tokens: Iterable[str]) -> str:
    """Tokens as a reader writes them: ESPnet spells a space ``<space>``, sentencepiece ``▁``."""
    return "".join(tokens).replace("<space>", " ").replace("▁", " ")


def edits(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Edit]:
    """Alignment of one sentence by plain edit distance; ASCII case is ignored, as sclite ignores it.

    Args:
        reference: tokens; may be empty.
        hypothesis: tokens; may be empty.
    """
    if not reference:
        return [Edit("insertion", 0, "", token) for token in hypothesis]
    if not hypothesis:
        return [Edit("deletion", place, token, "") for place, token in enumerate(reference)]
    import jiwer

    kinds = {"equal": "correct", "substitute": "substitution", "delete": "deletion", "insert": "insertion"}
    steps = []
    for chunk in jiwer.process_words(" ".join(map(_fold, reference)), " ".join(map(_fold, hypothesis))).alignments[0]:
        kind, theirs = kinds[chunk.type], range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        if kind == "insertion":
            steps += [Edit(kind, chunk.ref_start_idx, "", hypothesis[index]) for index in theirs]
            continue
        places = range(chunk.ref_start_idx, chunk.ref_end_idx)
        said = [hypothesis[index] for index in theirs] or [""] * len(places)
        steps += [Edit(kind, place, reference[place], token) for place, token in zip(places, said, strict=True)]
    return steps


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """Errors of one sentence by plain edit distance; ASCII case is ignored, as sclite ignores it.

    Args:
        reference: tokens; may be empty.
        hypothesis: tokens; may be empty.
    """
    if not reference:
        return Counts(1, 0, 0, 0, 0, len(hypothesis), int(bool(hypothesis)))
    if not hypothesis:
        return Counts(1, len(reference), 0, 0, len(reference), 0, 1)
    import jiwer

    found = jiwer.process_words(" ".join(map(_fold, reference)), " ".join(map(_fold, hypothesis)))
    errors = found.substitutions + found.deletions + found.insertions
    return Counts(
        1, len(reference), found.hits, found.substitutions, found.deletions, found.insertions, int(errors > 0)
    )


def _fold(token: str) -> str:
    return token.lower() if token.isascii() else token


def read_trn(path: str | Path) -> dict[str, list[str]]:
    """Read a trn file.

    Returns:
        Tokens by the ``speaker-utterance`` in the closing parentheses.

    Raises:
        UserError: no such file, or a line without ``(speaker-utterance)`` at its end.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run stage 13 first")
    sentences = {}
    for number, line in read_lines(path):
        found = re.fullmatch(r"(.*?)\s*\((\S+)\)\s*", line)
        if not found:
            raise UserError(f"{path}:{number}: no (speaker-utterance) at the end; run stage 13 again")
        sentences[found[2]] = found[1].split()
    return sentences


def count_trn(folder: str | Path) -> Counts:
    """Errors of ``folder``'s hyp.trn against its ref.trn, by plain edit distance.

    Raises:
        UserError: a reference lacks its hypothesis.
    """
    references, hypotheses = read_trn(Path(folder) / "ref.trn"), read_trn(Path(folder) / "hyp.trn")
    if missing := sorted(references.keys() - hypotheses.keys()):
        raise UserError(
            f"{folder}/hyp.trn: lacks {len(missing)} sentences ({', '.join(missing[:3])}); run stage 13 again"
        )
    total = Counts()
    for key, reference in references.items():
        total += align(reference, hypotheses[key])
    return total


def read_result(path: str | Path) -> Counts | None:
    """Exact counts of a result.txt: its ``Sum`` row of raw counts; None if it has none.

    Raises:
        UserError: the row lacks numbers.
    """
    path = Path(path)
    if not path.is_file():
        return None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"\s*\|\s*Sum\s*\|", line):
            numbers = [int(word) for word in re.findall(r"\d+", line)]
            if len(numbers) != 8:
                raise UserError(f"{path}: its Sum row holds {len(numbers)} numbers, not 8; run stage 13 again")
            sentences, tokens, correct, sub, dele, ins, _, wrong = numbers
            return Counts(sentences, tokens, correct, sub, dele, ins, wrong)
    return None


def summary_tables(by_speaker: Mapping[str, Counts], total: Counts) -> str:
    """Two tables in sclite's layout, percentages and raw counts, which asr.sh's scripts can read."""
    return "\n\n".join(
        (
            _table("SYSTEM SUMMARY PERCENTAGES by SPEAKER", by_speaker, total, "Sum/Avg", _percent),
            _table("SYSTEM SUMMARY RAW COUNTS by SPEAKER", by_speaker, total, "Sum", str),
        )
    )


def _percent(value: int, whole: int = 0) -> str:
    return f"{100 * value / whole:.1f}" if whole else "0.0"


def _table(title: str, by_speaker: Mapping[str, Counts], total: Counts, last: str, show: object) -> str:
    width = max(7, *(len(name) for name in by_speaker)) if by_speaker else 7
    rows = [f"| {'SPKR':<{width}}| # Snt # Wrd | Corr    Sub    Del    Ins    Err  S.Err |"]
    for name, counts in [*sorted(by_speaker.items()), (last, total)]:
        values = (counts.correct, counts.substitutions, counts.deletions, counts.insertions, counts.errors)
        if show is _percent:
            cells = [_percent(value, counts.tokens) for value in values] + [_percent(counts.wrong, counts.sentences)]
        else:
            cells = [str(value) for value in (*values, counts.wrong)]
        line = " ".join(f"{cell:>6}" for cell in cells)
        rows.append(f"| {name:<{width}}| {counts.sentences:>5} {counts.tokens:>5} |{line} |")
    return "\n".join((title, *rows)) + "\n"

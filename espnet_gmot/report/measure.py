"""How well alignments hit the true times: errors in milliseconds and mass in the right place."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from espnet_gmot.report.align import Span, barycentres, coupling_spans, inside
from espnet_gmot.report.rows import read_rows, write_rows
from espnet_gmot.report.statistics import ratio_error
from espnet_gmot.report.tables import with_error
from espnet_gmot.version import commit, now


@dataclass(frozen=True)
class Score:
    """One way to align, over all tokens of some utterances.

    Attributes:
        experiment, model_file: whose features or posteriors.
        aligner: ``plan`` (as trained), a preset's name (its transport on the same features), or ``ctc``.
        utterances, tokens: how many; of CTC, only utterances whose labels are as many as the plan's tokens.
        error_ms: mean of |centre - true centre|, the centre of a plan being its column's barycentre; tokens without
            mass have none, and count in path_ms alone.
        error_se_ms: standard error of that mean, utterances being drawn.
        median_ms: median of the same errors.
        bias_ms: mean of centre - true centre.
        path_ms: mean of |middle - true centre| along the monotone path that holds the most mass.
        inside: mean share of a column's mass in the token's true span; of CTC, of its frames.
        without_mass: tokens to which an unbalanced plan gives no mass; -1 in files that were written before they were
            counted.
        date, commit: when and with what it was measured; empty in files that were written before they were noted.
    """

    experiment: str
    model_file: str
    aligner: str
    utterances: int
    tokens: int
    error_ms: float
    error_se_ms: float
    median_ms: float
    bias_ms: float
    path_ms: float
    inside: float
    without_mass: int = -1
    date: str = ""
    commit: str = ""


def systems(scores: Iterable[Score]) -> dict[str, str]:
    """A system's name for each experiment: its folder's without seed, with its parents where folders share a name."""
    folders = {experiment: Path(experiment) for experiment in {score.experiment for score in scores}}
    last = Counter(folder.name for folder in folders.values())
    return {
        experiment: re.sub(
            r"_seed\d+$", "", folder.name.removeprefix("asr_") if last[folder.name] == 1 else folder.as_posix()
        )
        for experiment, folder in folders.items()
    }


def plan_errors(plan: np.ndarray, truth: Sequence[Span], seconds: float) -> np.ndarray:
    """What a plan gets wrong, token by token.

    Args:
        plan: (T, U).
        truth: U true spans.
        seconds: length of the recording.

    Returns:
        (3, U): centre - true centre and path's middle - true centre in seconds, and the share of mass inside.
    """
    centres = _centres(truth)
    path = coupling_spans(plan, [span.token for span in truth], seconds)
    spans = np.array([(span.start, span.end) for span in truth])
    return np.stack([barycentres(plan, seconds) - centres, _centres(path) - centres, inside(plan, spans, seconds)])


def span_errors(spans: Sequence[Span], truth: Sequence[Span]) -> np.ndarray:
    """The same (3, U) of an alignment that has spans alone; the share is that of its time inside the true span."""
    error = _centres(spans) - _centres(truth)
    share = [
        max(0.0, min(mine.end, true.end) - max(mine.start, true.start)) / (mine.end - mine.start)
        for mine, true in zip(spans, truth, strict=True)
    ]
    return np.stack([error, error, np.array(share)])


def score(experiment: str, model_file: str, aligner: str, errors: Iterable[np.ndarray]) -> Score:
    """Sum up.

    Args:
        experiment, model_file, aligner: what was measured.
        errors: one (3, U) for each utterance, see :func:`plan_errors`.
    """
    parts = list(errors)
    together = np.concatenate(parts, axis=1)
    off = np.abs(together[0])
    return Score(
        experiment,
        model_file,
        aligner,
        len(parts),
        together.shape[1],
        error_ms=1000 * float(np.nanmean(off)),
        error_se_ms=1000 * ratio_error([np.abs(part[0]) for part in parts]),
        median_ms=1000 * float(np.nanmedian(off)),
        bias_ms=1000 * float(np.nanmean(together[0])),
        path_ms=1000 * float(np.nanmean(np.abs(together[1]))),
        inside=float(np.nanmean(together[2])),
        without_mass=int(np.isnan(off).sum()),
    )


def stamped(scores: Iterable[Score]) -> list[Score]:
    """The same, with now and this code's commit."""
    date, code = now(), commit()
    return [replace(score, date=date, commit=code) for score in scores]


def _centres(spans: Sequence[Span]) -> np.ndarray:
    return np.array([(span.start + span.end) / 2 for span in spans])


def table(scores: Sequence[Score]) -> str:
    """For readers; lines below it say which rows leave out tokens or utterances that others have."""
    columns = f"{'error ms':>18}{'median':>8}{'bias':>8}{'path ms':>9}{'inside %':>10}"
    head = f"{'aligner':16}{'tokens':>8}{'no mass':>9}{columns}  of"
    lines = [head]
    for s in scores:
        error = with_error(s.error_ms, s.error_se_ms, 1)
        numbers = f"{error:>18}{s.median_ms:>8.1f}{s.bias_ms:>8.1f}{s.path_ms:>9.1f}{100 * s.inside:>10.1f}"
        lines.append(f"{s.aligner:16}{s.tokens:>8}{_lost(s):>9}{numbers}  {s.experiment} {s.model_file}")
    return "\n".join([*lines, *left_out(scores)])


def left_out(scores: Sequence[Score]) -> list[str]:
    """What makes rows hard to compare: tokens without mass, which are in no mean, and utterances that a row lacks."""
    most: dict[tuple[str, str], int] = {}
    for each in scores:
        model = each.experiment, each.model_file
        most[model] = max(most.get(model, 0), each.utterances)
    lines = []
    if any(each.without_mass > 0 for each in scores):
        lines.append(
            "Tokens without mass have no time and are in no mean but the path's: many of them make a row look better."
        )
    for each in scores:
        if lost := most[each.experiment, each.model_file] - each.utterances:
            lines.append(
                f"{each.aligner} of {each.experiment} {each.model_file} lacks {lost} of {lost + each.utterances} "
                "utterances, whose labels are not as many as the plan's tokens."
            )
    return lines


def _lost(score: Score) -> str:
    """How many tokens have no mass, where that is known."""
    return "–" if score.without_mass < 0 else str(score.without_mass)


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write a CSV file with a header, in one step."""
    write_rows(path, Score, scores)


def read_scores(path: str | Path) -> list[Score]:
    """Read what :func:`write_scores` wrote.

    Raises:
        UserError: no such file, a column is missing, or a value is no number; names the line.
    """
    return [score for _, score in read_rows(path, Score, "align --measure writes it")]

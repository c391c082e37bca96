"""Does knowledge of words arrive? Exact homophones, which nothing but knowledge tells apart, against the other
substitutions, and both against the baseline's."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_gmot.report.homophones import TONED, similarity
from espnet_gmot.report.pairing import pair
from espnet_gmot.report.rows import read_rows, write_rows
from espnet_gmot.report.scored import Row
from espnet_gmot.report.statistics import chance, deviations, seed_errors
from espnet_gmot.report.tables import block_names, blocks_of, probability, table

HEAD = ("system", "set", "same sound", "others", "same sound, %", "others, %", "ratio", "95 % from", "to", "p")


@dataclass(frozen=True)
class Sounding:
    """A system's substitutions, and how they changed against the baseline's.

    Attributes:
        system, set: whose.
        homophones, others: substitutions by a character of the same syllable and tone, and by any other; the mean over
            seeds.
        homophones_change, others_change: relative to the baseline's.
        ratio: of both changes; below 1, homophones fell by more (or rose by less).
        low, high: its 95 % interval, over speakers (or sentences) and seeds.
        p_value: two-sided, of the hypothesis that it is 1.
    """

    system: str
    set: str
    homophones: float
    others: float
    homophones_change: float
    others_change: float
    ratio: float
    low: float
    high: float
    p_value: float


def soundings(
    groups: Mapping[tuple[str, str], Sequence[Row]], base: str, resamples: int = 10_000, blocks: str | None = None
) -> list[Sounding]:
    """Every system's substitutions by sound, against the baseline's on the same set.

    The logarithm of the ratio is taken for the sum of Student's variables, as differences of error rates are
    (:func:`~espnet_gmot.report.statistics.uncertain`): one for the blocks, which both systems share, and one for the
    seeds, in pairs where they are the same (:func:`~espnet_gmot.report.pairing.pair`).

    Args:
        groups: experiments by system and set, one for each seed; all sets of the baseline's.
        base: the baseline.
        resamples: of the bootstrap.
        blocks: what it draws, ``speaker`` or ``utterance``; by default speakers where there are enough.

    Returns:
        One for each, but for those where either has a training without substitutions of a kind.

    Raises:
        UserError: pypinyin isn't installed.
    """
    found = []
    for key, ours in groups.items():
        if key[0] == base:
            continue
        theirs = groups[base, key[1]]
        pairing = pair(ours, theirs)
        if pairing.whole:
            ours, theirs = ([each[side] for each in pairing.pairs] for side in (0, 1))
        counts = _counts(ours), _counts(theirs)
        if all(each.sum(2).all() for each in counts):
            found.append(_against(key, *counts, _members(ours[0], blocks), pairing.whole, resamples))
    return found


def _counts(rows: Sequence[Row]) -> np.ndarray:
    """(2, S, N): substitutions by homophones and by others, of each seed in each utterance."""
    found = np.zeros((2, len(rows), len(rows[0].lengths)))
    for seed, row in enumerate(rows):
        for place, key in enumerate(sorted(row.lengths)):
            for edit in row.alignments[key]:
                if edit.kind == "substitution":
                    found[int(similarity(edit.reference, edit.hypothesis) != TONED), seed, place] += 1
    return found


def _members(row: Row, blocks: str | None) -> np.ndarray:
    """(N, blocks): which utterance belongs to which block."""
    names = block_names(row, blocks or blocks_of(row))
    return np.array(names)[:, None] == np.unique(names)


def _against(
    key: tuple[str, str], ours: np.ndarray, theirs: np.ndarray, members: np.ndarray, paired: bool, resamples: int
) -> Sounding:
    """One system's; ``paired``: seed by seed."""
    means = np.stack([ours.mean(1), theirs.mean(1)])  # (system, kind, utterance)
    blocks, rng = means @ members, np.random.default_rng(0)
    count = blocks.shape[-1]
    drawn = rng.multinomial(count, np.full(count, 1 / count), resamples)
    logs = np.log(np.maximum(blocks @ drawn.T, 0.5))  # a resample may lack a kind
    found = (logs[0, 0] - logs[1, 0]) - (logs[0, 1] - logs[1, 1])
    parts = [(float(found.var(ddof=1)) * count / (count - 1), count - 1)]
    parts += seed_errors([np.log(each[0].sum(1) / each[1].sum(1)) for each in (ours, theirs)], paired)
    off = deviations(parts, rng)
    totals = means.sum(2)
    changes = totals[0] / totals[1]
    value, half = math.log(changes[0] / changes[1]), float(np.quantile(off, 0.95))
    return Sounding(
        system=key[0],
        set=key[1],
        homophones=float(totals[0, 0]),
        others=float(totals[0, 1]),
        homophones_change=float(changes[0]) - 1,
        others_change=float(changes[1]) - 1,
        ratio=math.exp(value),
        low=math.exp(value - half),
        high=math.exp(value + half),
        p_value=chance(value, off),
    )


def render(found: Sequence[Sounding], base: str) -> str:
    """A table for readers."""
    body = []
    for each in found:
        counts = (f"{each.homophones:.0f}", f"{each.others:.0f}")
        changes = (f"{100 * each.homophones_change:+.1f}", f"{100 * each.others_change:+.1f}")
        ratio = (f"{value:.3f}" for value in (each.ratio, each.low, each.high))
        body.append((each.system, each.set, *counts, *changes, *ratio, probability(each.p_value)))
    title = f"Substitutions by a character of the same sound and tone, and by others, against {base}'s"
    if not found:
        return f"{title}: too few to compare"
    return f"{title}\n{table(HEAD, body, range(2, 10))}"


def write_soundings(path: Path, found: Iterable[Sounding]) -> None:
    """Write a CSV file with a header, in one step."""
    write_rows(path, Sounding, found)


def read_soundings(path: Path) -> list[Sounding]:
    """Read what :func:`write_soundings` wrote.

    Raises:
        UserError: no such file, a column is missing, or a value is no number; names the line.
    """
    return [found for _, found in read_rows(path, Sounding, "report --errors --baseline --write_sounds writes it")]

"""Tables of error rates, as text: experiments, means, standard errors, differences, kinds of errors."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from espnet_gmot.errors import UserError
from espnet_gmot.report import breakdown, homophones
from espnet_gmot.report.cells import marked
from espnet_gmot.report.pairing import pair
from espnet_gmot.report.scored import Row
from espnet_gmot.report.statistics import Uncertain, matched_pairs, mean_interval, uncertain
from espnet_gmot.report.utterances import Counted

#: Fewer blocks can't be resampled sensibly.
FEWEST_BLOCKS = 10
_SEEDS = "; several seeds add their variance; errors by plain edit distance"


def table(head: Sequence[str], body: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    """A table for readers.

    Args:
        head: titles of the columns.
        body: rows of cells.
        numbers: columns that are set flush right.
    """
    cells = [head, *body]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]

    def line(words: Sequence[str]) -> str:
        """One row."""
        padded = (
            word.rjust(width) if column in numbers else word.ljust(width)
            for column, (word, width) in enumerate(zip(words, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, body)])


def render(rows: Sequence[Row]) -> str:
    """A table of experiments."""
    head = ("system", "set", "sentences", "chars", "sub", "del", "ins", "CER %", "counted by")
    body = []
    for row in rows:
        c = row.counts
        numbers = (c.sentences, c.tokens, c.substitutions, c.deletions, c.insertions)
        body.append((marked(row.system, row.late), row.name, *map(str, numbers), f"{100 * c.rate:.2f}", row.source))
    return table(head, body, range(2, 8))


def lines(rates: Mapping[tuple[str, str], Sequence[float]]) -> str:
    """A line ``CER SYSTEM SET VALUE`` for each system and set: a fraction (0.2514 is 25.14 %), the mean over seeds."""
    return "\n".join(f"CER {system} {name} {mean_interval(found)[0]:.4f}" for (system, name), found in rates.items())


def means(rates: Mapping[tuple[str, str], Sequence[float]], late: Collection[tuple[str, str]] = ()) -> str:
    """A table of means over seeds with 95 % t intervals.

    Args:
        rates: of each system and set, one for each seed.
        late: those to mark.
    """
    body = []
    for (system, name), found in rates.items():
        mean, half = mean_interval([100 * rate for rate in found])
        low, high = (f"{mean - half:.2f}", f"{mean + half:.2f}") if len(found) > 1 else ("–", "–")
        shown = marked(system, (system, name) in late)
        body.append((shown, name, str(len(found)), f"{mean:.2f}", low, high))
    return table(("system", "set", "seeds", "mean CER %", "95 % from", "to"), body, range(2, 6))


def group(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by system and set, in their order."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.system, row.name), []).append(row)
    return found


def blocks_of(row: Row | Counted) -> str:
    """What to draw in the bootstrap of a set: speakers, or utterances where there are too few of them."""
    return "speaker" if len(set(row.speakers.values())) >= FEWEST_BLOCKS else "utterance"


def block_names(row: Row | Counted, blocks: str) -> list[str]:
    """The block of each utterance, in the order of their names; ``blocks`` is ``speaker`` or ``utterance``."""
    return [row.speakers[key] if blocks == "speaker" else key for key in sorted(row.lengths)]


def resampled(
    rows: Sequence[Row | Counted], blocks: str, resamples: int, others: Sequence[Row | Counted] | None = None
) -> Uncertain:
    """The CER of one system's experiments, or its difference from another's, with what is uncertain of it.

    Args:
        rows: of one set, one for each seed.
        blocks: ``speaker`` or ``utterance``.
        resamples: number of them.
        others: of the system whose CER is subtracted; see :func:`espnet_gmot.report.pairing.pair`.

    Raises:
        UserError: there are too few blocks.
    """
    lengths = rows[0].lengths
    keys = sorted(lengths)
    names = block_names(rows[0], blocks)
    if (count := len(set(names))) < FEWEST_BLOCKS:
        raise UserError(
            f"--blocks {blocks}: set {rows[0].name} has {count} of them, too few to resample"
            + ("; --blocks utterance takes utterances as independent" if blocks == "speaker" else "")
        )
    tokens = np.array([lengths[key] for key in keys])
    if others and (found := pair(rows, others)).whole:
        others = [other for _, other in found.pairs]
    ours = np.array([row.errors(keys) for row in rows])
    theirs = np.array([row.errors(keys) for row in others]) if others else None
    return uncertain(ours, tokens, names, theirs, paired=not others or found.whole, resamples=resamples)


def uncertainty(groups: Mapping[tuple[str, str], Sequence[Row | Counted]], blocks: str, resamples: int) -> str:
    """A table of standard errors and intervals of each system's CER, by resampling."""
    body = []
    for (system, name), rows in groups.items():
        found = resampled(rows, blocks, resamples)
        numbers = (100 * value for value in (found.value, found.error, found.low, found.high))
        body.append((_shown(system, rows), name, *(f"{number:.2f}" for number in numbers)))
    title = f"Standard errors: {resamples} bootstrap resamples of {blocks}s{_SEEDS}\n"
    return title + table(("system", "set", "CER %", "std. error", "95 % from", "to"), body, range(2, 6))


def differences(
    groups: Mapping[tuple[str, str], Sequence[Row | Counted]], base: str, blocks: str, resamples: int
) -> str:
    """A table of every system's CER less the baseline's: interval and p-value (see :func:`uncertain`), and matched
    pairs where the sentences are at hand; below it, whose seeds are not the baseline's."""
    body = []
    notes: dict[str, None] = {}
    for (system, name), rows in groups.items():
        if system == base:
            continue
        theirs = groups[base, name]
        apart = resampled(rows, blocks, resamples, theirs)
        # seed by seed, as sclite's users compare two experiments
        paired = pair(rows, theirs)
        notes[paired.note] = None
        pairs = [_matched(ours, other) for ours, other in paired.pairs] or ["–"]
        numbers = (100 * value for value in (apart.value, apart.low, apart.high))
        body.append(
            (
                *(_shown(system, rows), name, *(f"{number:+.2f}" for number in numbers)),
                *(probability(apart.p_value), probability(apart.unpaired), ", ".join(pairs)),
            )
        )
    head = ("system", "set", f"CER % – {base}'s", "95 % from", "to", "p", "p, seeds unpaired")
    title = f"Differences: {resamples} paired bootstrap resamples of {blocks}s{_SEEDS}\n"
    found = table((*head, "p by matched pairs, for each seed"), body, range(2, 7))
    return "\n".join([title + found, *filter(None, notes)])


def _shown(system: str, rows: Sequence[Row | Counted]) -> str:
    return marked(system, any(row.late for row in rows))


def probability(value: float) -> str:
    """A p-value for readers."""
    return f"{value:.2g}" if value >= 0.0001 else "<0.0001"


def with_error(value: float, error: float, digits: int) -> str:
    """A number and its standard error, where it has one: a single utterance tells none."""
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if np.isfinite(error) else "")


def _matched(row: Row | Counted, other: Row | Counted) -> str:
    if not (isinstance(row, Row) and isinstance(other, Row)):
        return "–"
    found = matched_pairs([(edits, other.alignments[key]) for key, edits in row.alignments.items()])
    p_value = f"{found.p_value:.3f}" if found.p_value >= 0.001 else "<0.001"
    return f"{p_value} ({found.segments} segments)"


def errors(groups: Mapping[tuple[str, str], Sequence[Row]], tokens: Sequence[str]) -> str:
    """Tables of where the errors lie, all seeds of a system together."""
    kinds, places, known = [], [], breakdown.characters(tokens)
    for (system, name), rows in groups.items():
        found = breakdown.break_down((edits for row in rows for edits in row.alignments.values()), known)
        counts = [found.kinds[kind] for kind in ("substitution", "deletion", "insertion")]
        sounds = [found.sounds[kind] for kind in (homophones.TONED, homophones.TONELESS)]
        shares = [f"{sound} ({_percent(sound, counts[0])})" for sound in sounds]
        rates = [f"{wrong}/{all_} ({_percent(wrong, all_)})" for all_, wrong in (found.unseen, found.seen)]
        kinds.append((system, name, *map(str, counts), *shares, *rates))
        places.append((system, name, *(_percent(wrong, all_) for all_, wrong in found.places)))
    head: tuple[str, ...] = (
        "system",
        "set",
        "sub",
        "del",
        "ins",
        "sub: same sound and tone",
        "sub: same sound, other tone",
    )
    head += ("wrong: characters not in training", "wrong: the others")
    distances = [f"{low}" + "–" * (high > low) + str(high) * (low < high < 10**9) for low, high in breakdown.PLACES]
    first = "Kinds of errors\n" + table(head, kinds, range(2, 9))
    second = "Errors per character, by its place in the sentence\n"
    return f"{first}\n\n{second}" + table(("system", "set", *distances), places, range(2, 8))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"

"""Tables of what the experiments' CSV files hold beside error rates: times, what teachers know, homophones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_gmot.report.courses import Moment
from espnet_gmot.report.homophones import TONED
from espnet_gmot.report.knowledge import ALL, read_knowledge
from espnet_gmot.report.measure import Score, read_scores, systems
from espnet_gmot.report.sounds import read_soundings
from espnet_gmot.report.tables import probability


def alignment_table(path: Path) -> str:
    """Errors of token times, one line for each teacher and way to align, seeds averaged."""
    found: dict[tuple[str, str], list[Score]] = {}
    measured = read_scores(path)
    names = systems(measured)
    for score in measured:
        found.setdefault((names[score.experiment], score.aligner), []).append(score)
    head = ["model", "aligned by", "seeds", "error, ms", "along the path, ms", "mass in the true span, %"]
    rows = []
    for (system, aligner), scores in found.items():
        errors, paths = [score.error_ms for score in scores], [score.path_ms for score in scores]
        shares = [100 * score.inside for score in scores]
        rows.append([system, aligner, str(len(scores)), _range(errors), _range(paths), _range(shares)])
    return markdown(head, rows)


def knowledge_table(path: Path, labels: dict[str, str]) -> str:
    """How often teachers tell the right place from the wrong one: of exact homophones, and of all substitutions.

    Args:
        path: what `report --write_knowledge` wrote.
        labels: what to call the teachers, in the order of the table.
    """
    found = {(each.teacher, each.sound): each for each in read_knowledge(path)}
    if lacking := {teacher for teacher, _ in found} - labels.keys():
        sys.exit(f"{path.name}: no label for {', '.join(sorted(lacking))}")
    rows = []
    for teacher, label in labels.items():
        cells = [label]
        for sound in (TONED, ALL):
            each = found[teacher, sound]
            shares = ((each.heard, each.heard_error), (each.said, each.said_error))
            cells += [str(each.asked), *(f"{100 * share:.0f} ± {100 * error:.0f}" for share, error in shares)]
        rows.append(cells)
    places = ("as recognised, %", "in the reference, %")
    return markdown(["teacher", "exact homophones", *places, "all substitutions", *places], rows)


def sounds_table(path: Path, labels: dict[str, str], parts: Sequence[str]) -> str:
    """How much more (or less) exact homophones changed than the other substitutions.

    Args:
        path: what `report --write_sounds` wrote.
        labels: what to call the systems, in the order of the table.
        parts: the sets.
    """
    found = {(each.system, each.set): each for each in read_soundings(path)}
    head, rows = [""], []
    for part in parts:
        head += [f"{part}: same sound, others, %", "ratio (95 %)", "p"]
    for system, label in labels.items():
        cells = [label]
        for each in (found[system, part] for part in parts if (system, part) in found):
            cells.append(f"{100 * each.homophones_change:+.1f}, {100 * each.others_change:+.1f}")
            cells += [f"{each.ratio:.3f} ({each.low:.3f} to {each.high:.3f})", probability(each.p_value)]
        if len(cells) > 1:
            rows.append(cells)
    return markdown(head, rows)


def course_table(lines: dict[str, list[Moment]]) -> str:
    """Errors of token times and the mass in the true span after each epoch, one line for each system."""
    epochs = sorted({moment.epoch for moments in lines.values() for moment in moments})
    rows = []
    for system, moments in lines.items():
        at = {moment.epoch: f"{moment.error_ms:.0f} ({100 * moment.inside:.0f})" for moment in moments}
        rows.append([system, str(moments[0].seeds), *(at.get(epoch, "") for epoch in epochs)])
    return markdown(["error, ms (mass in the true span, %) after epoch", "seeds", *map(str, epochs)], rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table of these headings and cells."""
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, *rows]]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _range(values: list[float]) -> str:
    """The mean, and the least and largest of several."""
    mean = sum(values) / len(values)
    return f"{mean:.0f}" if len(values) == 1 else f"{mean:.0f} ({min(values):.0f} to {max(values):.0f})"

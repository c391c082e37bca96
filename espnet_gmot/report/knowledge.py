"""Whether a language model knows better: of a recogniser's substitutions, those in which it would choose right."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from espnet_gmot.report.cer import Edit
from espnet_gmot.report.homophones import OTHER, TONED, TONELESS, similarity
from espnet_gmot.report.scored import Row
from espnet_gmot.report.tables import percent, table
from espnet_gmot.teacher.choice import Doubt, MaskedChoice


@dataclass
class Chosen:
    """Substitutions of one kind.

    Attributes:
        substitutions: how many.
        judged: those in which both characters are tokens of the model.
        alone, heard, said: of these, those in which it finds the right character likelier: without any sentence, in
            the sentence as it was recognised, and in the reference.
    """

    substitutions: int = 0
    judged: int = 0
    alone: int = 0
    heard: int = 0
    said: int = 0


def doubts(sentence: Sequence[Edit]) -> list[tuple[Doubt, Doubt]]:
    """A sentence's substitutions, each in the sentence as recognised and in the reference; ours is the right one.

    Args:
        sentence: an alignment.
    """
    heard, said = ([getattr(edit, side) for edit in sentence] for side in ("hypothesis", "reference"))
    return [
        (
            Doubt("".join(heard[:index]), "".join(heard[index + 1 :]), edit.reference, edit.hypothesis),
            Doubt("".join(said[:index]), "".join(said[index + 1 :]), edit.reference, edit.hypothesis),
        )
        for index, edit in enumerate(sentence)
        if edit.kind == "substitution"
    ]


def ask(
    sentences: Iterable[Sequence[Edit]], judge: Callable[[Sequence[Doubt]], Sequence[float | None]]
) -> dict[str, Chosen]:
    """Let a model choose between the right and the recognised character of every substitution.

    Args:
        sentences: alignments.
        judge: log p(ours) - log p(theirs) of each doubt, or None: a :class:`espnet_gmot.teacher.choice.MaskedChoice`.

    Returns:
        What it chose, by how alike the two characters sound.
    """
    asked = [pair for sentence in sentences for pair in doubts(sentence)]
    heard, said = judge([pair[0] for pair in asked]), judge([pair[1] for pair in asked])
    alone = judge([pair[0].alone for pair in asked])
    found = {sound: Chosen() for sound in (TONED, TONELESS, OTHER)}
    for (doubt, _), *values in zip(asked, alone, heard, said, strict=True):
        each = found[similarity(doubt.ours, doubt.theirs)]
        each.substitutions += 1
        known = [value > 0 for value in values if value is not None]
        if len(known) == len(values):
            each.judged += 1
            each.alone += known[0]
            each.heard += known[1]
            each.said += known[2]
    return found


def choices(groups: Mapping[tuple[str, str], Sequence[Row]], teacher: str) -> str:
    """A table of how often a language model finds the right character likelier than the one that was recognised.

    Args:
        groups: experiments of each system and set; all seeds of a system are counted together.
        teacher: a masked language model, folder or hub name.

    Raises:
        UserError: it can't be loaded, or predicts no masked tokens.
    """
    judge = MaskedChoice(teacher)
    body = []
    for (system, name), rows in groups.items():
        found = ask((edits for row in rows for edits in row.alignments.values()), judge)
        for sound, each in found.items():
            shares = (percent(right, each.judged) for right in (each.alone, each.heard, each.said))
            body.append((system, name, sound, f"{each.judged}/{each.substitutions}", *shares))
    head = ("system", "set", "substitution", "judged", "alone", "in what was recognised", "in the reference")
    title = f"Substitutions in which {teacher} finds the right character likelier than the recognised one\n"
    return title + table(head, body, range(3, 7))

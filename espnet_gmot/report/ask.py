"""Ask a language model: of a recogniser's substitutions, in which would it have chosen right?"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from espnet_gmot.report.cer import Edit
from espnet_gmot.report.homophones import OTHER, TONED, TONELESS, similarity
from espnet_gmot.report.knowledge import Chosen
from espnet_gmot.report.scored import Row
from espnet_gmot.teacher.choice import Doubt, MaskedChoice


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
) -> dict[str, list[tuple[bool, bool, bool] | None]]:
    """Let a model choose between the right and the recognised character of every substitution.

    Args:
        sentences: alignments.
        judge: log p(ours) - log p(theirs) of each doubt, or None: a :class:`espnet_gmot.teacher.choice.MaskedChoice`.

    Returns:
        For each substitution, by how alike the two characters sound, whether it would choose right alone, in the
        sentence as recognised, and in the reference; None where it can't judge.
    """
    asked = [pair for sentence in sentences for pair in doubts(sentence)]
    alone = judge([heard.alone for heard, _ in asked])
    heard, said = judge([pair[0] for pair in asked]), judge([pair[1] for pair in asked])
    found: dict[str, list[tuple[bool, bool, bool] | None]] = {sound: [] for sound in (TONED, TONELESS, OTHER)}
    for (doubt, _), one, two, three in zip(asked, alone, heard, said, strict=True):
        answers = found[similarity(doubt.ours, doubt.theirs)]
        if one is None or two is None or three is None:
            answers.append(None)
        else:
            answers.append((one > 0, two > 0, three > 0))
    return found


def choices(groups: Mapping[tuple[str, str], Sequence[Row]], teachers: Iterable[str]) -> list[Chosen]:
    """What language models would have chosen.

    Args:
        groups: experiments of each system and set, one for each seed.
        teachers: masked language models, folders or hub names.

    Raises:
        UserError: one can't be loaded, or predicts no masked tokens.
    """
    found = []
    for teacher in teachers:
        judge = MaskedChoice(teacher)
        for (system, name), rows in groups.items():
            asked = ask((edits for row in rows for edits in row.alignments.values()), judge)
            for sound, answers in asked.items():
                judged = [answer for answer in answers if answer is not None]
                right = [sum(column) for column in zip(*judged, strict=True)] or [0, 0, 0]
                found.append(Chosen(teacher, system, name, sound, len(answers), len(judged), *right))
    return found

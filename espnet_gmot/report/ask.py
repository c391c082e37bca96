"""Ask a language model: can it tell where the right character stands and where the one that was recognised?"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from espnet_gmot.report.breakdown import break_down
from espnet_gmot.report.cer import Edit, written
from espnet_gmot.report.homophones import OTHER, TONED, TONELESS, similarity
from espnet_gmot.report.knowledge import ALL, Knowledge
from espnet_gmot.report.scored import Row
from espnet_gmot.report.statistics import ratio_error
from espnet_gmot.teacher.choice import Doubt, MaskedChoice

_TIE = 1e-4  # nats: less is rounding


def doubt(sentence: Sequence[Edit], index: int, side: str, ours: str, theirs: str) -> Doubt:
    """A place of a sentence.

    Args:
        sentence: an alignment.
        index: which of its steps.
        side: ``hypothesis`` or ``reference``: as recognised, or as it should be.
        ours, theirs: characters for it.
    """
    tokens = [getattr(edit, side) for edit in sentence]
    return Doubt(written(tokens[:index]), written(tokens[index + 1 :]), ours, theirs)


def pairs(sentences: Mapping[str, Sequence[Edit]]) -> list[tuple[str, int, str, int]]:
    """Substitutions, each with a place where what was recognised is right.

    Args:
        sentences: alignments by utterance.

    Returns:
        Utterance and step of each substitution for which there is such a place, then that place's. Places with the same
        character take turns.
    """
    right: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for key, sentence in sentences.items():
        for index, edit in enumerate(sentence):
            if edit.kind == "correct":
                right[edit.reference].append((key, index))
    turns: Counter[str] = Counter()
    found = []
    for key, sentence in sentences.items():
        for index, edit in enumerate(sentence):
            if edit.kind == "substitution" and (others := right.get(edit.hypothesis)):
                found.append((key, index, *others[turns[edit.hypothesis] % len(others)]))
                turns[edit.hypothesis] += 1
    return found


def ask(
    seeds: Sequence[Mapping[str, Sequence[Edit]]], judge: Callable[[Sequence[Doubt]], Sequence[float | None]]
) -> list[tuple[str, str, float, float]]:
    """Whether a model tells each substitution's place from one where the recognised character is right.

    Both places are weighed for the same two characters, so that it counts for nothing which is the more frequent.

    Args:
        seeds: alignments by utterance, for each seed; a substitution's other place is one of its own seed's.
        judge: log p(ours) - log p(theirs) of each doubt, or None: a :class:`espnet_gmot.teacher.choice.MaskedChoice`.

    Returns:
        For each substitution that it can weigh: the utterance, how alike the characters sound, and whether it finds the
        right character likelier at its own place than at the other's, in the sentences as recognised and as they should
        be: 1, 0, or 0.5 for a tie.
    """
    asked, doubts = [], []
    for sentences in seeds:
        for key, index, other, place in pairs(sentences):
            edit = sentences[key][index]
            asked.append((key, edit))
            for side in ("hypothesis", "reference"):
                doubts.append(doubt(sentences[key], index, side, edit.reference, edit.hypothesis))
                doubts.append(doubt(sentences[other], place, side, edit.reference, edit.hypothesis))
    weights = judge(doubts)  # of all seeds at once: a place in the reference comes again with each
    found = []
    for number, (key, edit) in enumerate(asked):
        values = [weight for weight in weights[4 * number : 4 * number + 4] if weight is not None]
        if len(values) == 4:
            sound = similarity(edit.reference, edit.hypothesis)
            found.append((key, sound, _larger(*values[:2]), _larger(*values[2:])))
    return found


def _larger(one: float, other: float) -> float:
    return 0.5 if abs(one - other) < _TIE else float(one > other)


def knowledge(groups: Mapping[tuple[str, str], Sequence[Row]], teachers: Iterable[str]) -> list[Knowledge]:
    """What language models can tell of the recognisers' substitutions.

    Args:
        groups: experiments of each system and set, one for each seed.
        teachers: masked language models, folders or hub names.

    Raises:
        UserError: one can't be loaded, or predicts no masked tokens.
    """
    judges = {teacher: MaskedChoice(teacher) for teacher in teachers}  # all of them before the first is asked
    found = []
    for teacher, judge in judges.items():
        for (system, name), rows in groups.items():
            seeds = [row.alignments for row in rows]
            answers = ask(seeds, judge)
            made = break_down((sentence for each in seeds for sentence in each.values()), set()).sounds
            for sound in (TONED, TONELESS, OTHER, ALL):
                here = [answer for answer in answers if sound in (answer[1], ALL)]
                shares = [share for side in (2, 3) for share in _share(here, side)]
                count = made.total() if sound == ALL else made[sound]
                found.append(Knowledge(teacher, system, name, sound, count, len(here), *shares))
    return found


def _share(answers: Sequence[tuple[str, str, float, float]], side: int) -> tuple[float, float]:
    """Mean of one side's answers, and its standard error when utterances are drawn, with all their seeds."""
    groups: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        groups[answer[0]].append(float(answer[side]))
    values = [np.array(each) for each in groups.values()]
    return (float(np.concatenate(values).mean()) if values else float("nan")), ratio_error(values)

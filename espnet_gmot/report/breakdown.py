"""Where errors lie: among homophones, on characters that training never saw, near the start of a sentence or far on."""

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from espnet_gmot.report.cer import Edit
from espnet_gmot.report.homophones import similarity

#: First and last place of the reference, from 1 on, in each class of distances from the sentence's start.
PLACES = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 10**9))


@dataclass
class Breakdown:
    """Errors by kind.

    Attributes:
        kinds: how many substitutions, deletions and insertions.
        sounds: substitutions by :func:`espnet_gmot.report.homophones.similarity`.
        seen, unseen: reference characters that the token list holds, or lacks: how many, and how many of them are wrong
            (substituted or deleted; an insertion belongs to no character of the reference).
        places: reference characters and errors by distance from the start, in the order of :data:`PLACES`; an insertion
            counts where the next character of the reference stands.
    """

    kinds: Counter = field(default_factory=Counter)
    sounds: Counter = field(default_factory=Counter)
    seen: list[int] = field(default_factory=lambda: [0, 0])
    unseen: list[int] = field(default_factory=lambda: [0, 0])
    places: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in PLACES])


def characters(tokens: Iterable[str]) -> set[str]:
    """What a recogniser with these tokens can write, as errors are counted: characters, and ESPnet's ``<space>``.

    Args:
        tokens: characters, pieces of words or words; ``<…>`` are no text.
    """
    plain = [token for token in tokens if not (len(token) > 1 and token[0] == "<" and token[-1] == ">")]
    longer = any(len(token) > 1 for token in plain)  # then spaces part them, or are within them
    return {*"".join(plain).replace("▁", ""), *tokens, *(["<space>"] if longer else [])}


def break_down(sentences: Iterable[Sequence[Edit]], tokens: Set[str]) -> Breakdown:
    """Count the errors of aligned sentences.

    Args:
        sentences: alignments.
        tokens: all that its training knew; see :func:`characters`.
    """
    found = Breakdown()
    for sentence in sentences:
        length = sum(edit.kind != "insertion" for edit in sentence)
        for edit in sentence:
            wrong = edit.kind != "correct"
            inserted = edit.kind == "insertion"
            found.kinds[edit.kind] += 1
            if edit.kind == "substitution":
                found.sounds[similarity(edit.reference, edit.hypothesis)] += 1
            if not inserted:
                group = found.seen if edit.reference in tokens else found.unseen
                group[0] += 1
                group[1] += wrong
            place = min(edit.place + 1, max(1, length))
            group = next(group for group, (_, last) in zip(found.places, PLACES, strict=True) if place <= last)
            group[0] += not inserted
            group[1] += wrong
    return found

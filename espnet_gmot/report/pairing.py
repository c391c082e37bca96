"""Which experiments of two systems go together: those with the same seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from espnet_gmot.report.scored import Row
from espnet_gmot.report.utterances import Counted

Each = TypeVar("Each", bound=Row | Counted)


@dataclass(frozen=True)
class Pairing(Generic[Each]):
    """The experiments of two systems on one set.

    Attributes:
        pairs: those that go together.
        whole: whether each has its partner, so that the seeds are paired; else the systems' seeds are taken for
            independent samples.
        note: one line about seeds that are not the same; empty where they are.
    """

    pairs: Sequence[tuple[Each, Each]]
    whole: bool
    note: str = ""


def pair(ours: Sequence[Each], theirs: Sequence[Each]) -> Pairing[Each]:
    """Pair by seed; in the order given where a seed isn't known, or is there twice, and there are as many of each."""
    mine, other = ([row.seed for row in rows] for rows in (ours, theirs))
    single = len(ours) == len(theirs) == 1  # two experiments are compared as they are: no seed is estimated
    if None in (*mine, *other) or len(set(mine)) < len(mine) or len(set(other)) < len(other):
        if len(ours) == len(theirs):
            return Pairing([*zip(ours, theirs, strict=True)], True)
        note = f"{ours[0].system} has {len(ours)} experiments, {theirs[0].system} {len(theirs)}: taken for independent."
        return Pairing([], False, note)
    partners = dict(zip(other, theirs, strict=True))
    if set(mine) == set(other):
        return Pairing([(row, partners[row.seed]) for row in ours], True)
    note = f"{ours[0].system} has {_seeds(mine)}, {theirs[0].system} {_seeds(other)}"
    if single:
        return Pairing([(ours[0], theirs[0])], True, f"{note}: they differ in their seeds too.")
    shared = [row.seed for row in ours if row.seed in partners]
    alone = f"; in pairs {_seeds(shared)} alone" if shared else ""
    pairs = [(row, partners[row.seed]) for row in ours if row.seed in partners]
    return Pairing(pairs, False, f"{note}: taken for independent{alone}.")


def _seeds(seeds: Sequence[int | None]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {' '.join(map(str, sorted(seed for seed in seeds if seed is not None)))}"

"""Scored experiments, read back and checked: nothing unfinished, nothing missing, nothing that can't be compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import read_mapping
from espnet_gmot.report.cells import late, seed_of
from espnet_gmot.report.cer import Counts, Edit, count_trn, edits, read_result, read_trn
from espnet_gmot.report.speakers import speakers
from espnet_gmot.report.training_log import read_training_log


@dataclass(frozen=True)
class Row:
    """One system on one set.

    Attributes:
        system, name: of the system and of the set.
        counts: errors.
        source: who counted: "sclite", "jiwer", or "jiwer (from trn)".
        folder: where the counts come from.
        seed: of the training, where it is known.
        late: whether it was trained or scored when the test set was known already.
    """

    system: str
    name: str
    counts: Counts
    source: str
    folder: Path
    seed: int | None = None
    late: bool = False

    @cached_property
    def references(self) -> dict[str, list[str]]:
        """Reference by ``speaker-utterance``."""
        return read_trn(self.folder / "ref.trn")

    @property
    def lengths(self) -> dict[str, int]:
        """Reference tokens by ``speaker-utterance``."""
        return {key: len(reference) for key, reference in self.references.items()}

    @property
    def rate(self) -> float:
        """Errors per reference token."""
        return self.counts.rate

    @property
    def size(self) -> int:
        """Reference tokens."""
        return self.counts.tokens

    @cached_property
    def speakers(self) -> dict[str, str]:
        """Speaker by ``speaker-utterance``."""
        return speakers(self.folder, self.references)

    @cached_property
    def alignments(self) -> dict[str, list[Edit]]:
        """Alignment by ``speaker-utterance``; raises UserError where a hypothesis is missing."""
        count_trn(self.folder)
        hypotheses = read_trn(self.folder / "hyp.trn")
        return {key: edits(reference, hypotheses[key]) for key, reference in self.references.items()}

    def errors(self, keys: Iterable[str]) -> list[int]:
        """Errors of these sentences."""
        return [sum(edit.kind != "correct" for edit in self.alignments[key]) for key in keys]


def decodings(exp: Path) -> dict[str, dict[str, Path]]:
    """Scored sets of an experiment.

    Returns:
        For each decoding folder (ESPnet's inference_tag), the score_cer folder of each set; the validation set,
        which ESPnet decodes as ``org/SET``, goes by its own name.

    Raises:
        UserError: nothing has been scored.
    """
    found: dict[str, dict[str, Path]] = {}
    for folder in sorted(path.parent for path in exp.glob("*/**/score_cer/ref.trn")):
        parts = folder.relative_to(exp).parts[:-1]
        found.setdefault(parts[0], {})["/".join(parts[1:]).removeprefix("org/")] = folder
    if not found:
        raise UserError(f"{exp}: no DECODING/SET/score_cer/ref.trn; run stages 12 and 13 first")
    return found


def collect(system: str, exp: Path, sets: Sequence[str], tag: str | None) -> list[Row]:
    """Rows of one system.

    Args:
        system: name in the table.
        exp: experiment folder.
        sets: sets to report, in order; empty takes all.
        tag: decoding folder; needed where there are several.

    Raises:
        UserError: several decodings and no ``tag``, or a set that was not scored, or not to the end, or is empty.
    """
    found = decodings(exp)
    if tag is None and len(found) > 1:
        raise UserError(f"{exp}: {len(found)} decodings; choose one by --inference_tag: {', '.join(found)}")
    tag = tag or next(iter(found))
    if tag not in found:
        raise UserError(f"{exp}: no decoding --inference_tag {tag}; there are {', '.join(found)}")
    if unknown := [name for name in sets if name not in found[tag]]:
        raise UserError(f"{exp}/{tag}: set {unknown[0]!r} is not scored; there are {', '.join(found[tag])}")
    seed = seed_of(exp)
    return [
        Row(system, name, *_counted(found[tag][name]), found[tag][name], seed, late(exp, name))
        for name in sets or found[tag]
    ]


def _counted(folder: Path) -> tuple[Counts, str]:
    """The errors of a scored set, and who counted them."""
    result = folder / "result.txt"
    counts, source = read_result(result), "jiwer (from trn)"
    if counts is None:
        counts = count_trn(folder)
    else:
        _check_fresh(result, counts)
        by_jiwer = result.read_text(encoding="utf-8", errors="replace").startswith("Counted by jiwer")
        source = "jiwer" if by_jiwer else "sclite"
    if counts.tokens < 1:
        raise UserError(f"{folder}/ref.trn: has no characters to count errors of; score a set that has some")
    return counts, source


def _check_fresh(result: Path, counts: Counts) -> None:
    """Stage 13 writes the trn files first: an older result may be that of another decoding."""
    hypotheses = result.with_name("hyp.trn")
    if not hypotheses.is_file() or result.stat().st_mtime_ns >= hypotheses.stat().st_mtime_ns:
        return
    now = count_trn(result.parent)  # a copy may have any times
    if (counts.sentences, counts.tokens, counts.errors) != (now.sentences, now.tokens, now.errors):
        raise UserError(
            f"{result}: is older than hyp.trn and counts {counts.errors} errors where that has {now.errors}: "
            "run stage 13 again, which was cut short"
        )


def check_finished(exp: Path) -> None:
    """Check that an experiment's training came to its end, as far as its log tells.

    Raises:
        UserError: it stopped early.
    """
    log = read_training_log(exp)
    if not log.finished:
        raise UserError(
            f"{exp}: trained {len(log.epochs)} of {log.max_epoch} epochs; train on (stage 11 resumes), or leave it out"
        )


def token_list(exp: Path) -> list[str] | None:
    """The recogniser's tokens; None where the experiment has no config.yaml.

    Raises:
        UserError: the configuration has none.
    """
    config = exp / "config.yaml"
    if not config.is_file():
        return None
    tokens = read_mapping(config).get("token_list")
    if not isinstance(tokens, list):
        raise UserError(f"{config}: no token_list in it; train the experiment (stage 11) first")
    return [str(token) for token in tokens]


def check_comparable(rows: Mapping[str, Sequence[Row]], exps: Mapping[str, Sequence[Path]]) -> None:
    """Check that experiments can be compared: finished, as many of each system, same tokens, same references.

    Args:
        rows: by system.
        exps: experiment folders by system.

    Raises:
        UserError: naming the experiment that differs from the first one, and in what.
    """
    folders = [exp for each in exps.values() for exp in each]
    for exp in folders:
        check_finished(exp)
    known = [(exp, tokens) for exp in folders if (tokens := token_list(exp)) is not None]
    for exp, tokens in known[1:]:
        if tokens != known[0][1]:
            raise UserError(
                f"{exp}: its token list ({len(tokens)}) isn't that of {known[0][0]} ({len(known[0][1])}); "
                "compare experiments on the same data"
            )
    first: dict[str, Row] = {}
    for row in (row for each in rows.values() for row in each):
        _check_same_references(first.setdefault(row.name, row), row)


def _check_same_references(first: Row, row: Row) -> None:
    for one, other in ((first, row), (row, first)):
        if missing := sorted(one.references.keys() - other.references.keys()):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"{other.folder}/ref.trn: lacks utterance {missing[0]}{more}, which {one.folder} has: "
                f"other test sets can't be compared; score both on the same {row.name}"
            )
    if changed := next((key for key, text in first.references.items() if row.references[key] != text), None):
        raise UserError(
            f"{row.folder}/ref.trn: utterance {changed} isn't what it is in {first.folder}; score both on one text"
        )

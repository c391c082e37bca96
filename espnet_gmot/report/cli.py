"""``report``: one table of character error rates, and the same figures as lines for scripts."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.report.cer import Counts, count_trn, read_result


@dataclass(frozen=True)
class Row:
    """One system on one set.

    Attributes:
        system, name: of the system and of the set.
        counts: errors.
        source: who counted: "sclite", "jiwer", or "jiwer (from trn)".
        folder: where the counts come from.
    """

    system: str
    name: str
    counts: Counts
    source: str
    folder: Path


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


def collect(system: str, exp: Path, sets: list[str], tag: str | None) -> list[Row]:
    """Rows of one system.

    Args:
        system: name in the table.
        exp: experiment folder.
        sets: sets to report, in order; empty takes all.
        tag: decoding folder; needed where there are several.

    Raises:
        UserError: several decodings and no ``tag``, or a set that was not scored.
    """
    found = decodings(exp)
    if tag is None and len(found) > 1:
        raise UserError(f"{exp}: {len(found)} decodings; choose one by --inference_tag: {', '.join(found)}")
    tag = tag or next(iter(found))
    if tag not in found:
        raise UserError(f"{exp}: no decoding --inference_tag {tag}; there are {', '.join(found)}")
    if unknown := [name for name in sets if name not in found[tag]]:
        raise UserError(f"{exp}/{tag}: set {unknown[0]!r} is not scored; there are {', '.join(found[tag])}")
    return [_row(system, name, found[tag][name]) for name in sets or found[tag]]


def _row(system: str, name: str, folder: Path) -> Row:
    counts = read_result(folder / "result.txt")
    if counts is None:
        return Row(system, name, count_trn(folder), "jiwer (from trn)", folder)
    by_jiwer = (folder / "result.txt").read_text(encoding="utf-8", errors="replace").startswith("Counted by jiwer")
    return Row(system, name, counts, "jiwer" if by_jiwer else "sclite", folder)


def render(rows: list[Row]) -> str:
    """A table for readers, then one line ``CER SYSTEM SET VALUE`` for each row (a fraction: 0.2514 is 25.14 %)."""
    head = ("system", "set", "sentences", "chars", "sub", "del", "ins", "CER %", "counted by")
    cells = [head]
    for row in rows:
        c = row.counts
        numbers = (c.sentences, c.tokens, c.substitutions, c.deletions, c.insertions)
        cells.append((row.system, row.name, *map(str, numbers), f"{100 * c.rate:.2f}", row.source))
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = [
        "  ".join(_pad(cell, width, column) for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    closing = [f"CER {row.system} {row.name} {row.counts.rate:.4f}" for row in rows]
    return "\n".join([*(line.rstrip() for line in lines), "", *closing])


def _pad(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if 2 <= column <= 7 else cell.ljust(width)


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot report",
        description="Character error rates of scored experiments: a table, then lines 'CER SYSTEM SET VALUE'. "
        "Counts are those of score_cer/result.txt (sclite's, or jiwer's without sclite), else of the trn files.",
    )
    parser.add_argument("--exp", nargs="+", required=True, metavar="NAME=DIR", help="experiments, e.g. ctc=exp/asr_ctc")
    parser.add_argument("--sets", default="", help='sets to report, e.g. "dev test"; default: all')
    parser.add_argument("--inference_tag", help="decoding folder, where an experiment has several")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; raises UserError where something was not scored."""
    args = get_parser().parse_args(argv)
    rows = []
    for word in args.exp:
        system, equals, folder = word.partition("=")
        if not (system and equals and folder) or any(character.isspace() for character in system):
            raise UserError(f"--exp {word}: write NAME=DIR, the name without spaces, e.g. ctc=exp/asr_ctc")
        rows += collect(system, Path(folder), args.sets.split(), args.inference_tag)
    print(render(rows))
    return 0

"""``doctor``: what is installed, what is missing, and for each missing piece the one command that mends it.

Quick by default: it looks at installed distributions and files and imports torch alone. ``--full`` also imports
ESPnet's ASR task, to see that the plugin is among its choices, and runs the teacher on one sentence.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from espnet_gmot.doctor import material, software
from espnet_gmot.doctor.finding import REQUIRED, Finding
from espnet_gmot.errors import UserError
from espnet_gmot.version import __version__


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """Every finding, in the order of the report.

    Args:
        args: the parsed options of :func:`parser`.
    """
    yield software.python()
    yield Finding("espnet_gmot", f"{__version__} in {Path(__file__).parents[1]}")
    for name in software.PACKAGES:
        yield software.package(name)
    if sys.version_info < (3, 12):
        yield software.espnet_needs()
    yield software.espnet_asks()
    yield software.hooks_full() if args.full else software.hooks()
    yield software.gpu()
    yield software.scoring(args.espnet_root)
    yield material.checkout(args.espnet_root)
    if args.espnet_root:
        yield software.asr_sh()
    if args.teacher:
        yield material.teacher_runs(args.teacher) if args.full else material.teacher(args.teacher)
    yield material.disk(args.workdir, material.AISHELL_GB if args.aishell else material.LITTLE_GB)
    yield material.aishell(args.aishell)


def report(findings: Iterable[Finding], write: Callable[[str], object] = print) -> int:
    """Print findings as they come.

    Args:
        findings: what was found.
        write: where lines go.

    Returns:
        1 if something needed is missing, else 0.
    """
    mends: Counter[str] = Counter()
    for finding in findings:
        mends.update([finding.mend] if finding.status == REQUIRED else [])
        write(f"{finding.status:8} {finding.name:16} {finding.detail}")
        if finding.mend:
            write(f"{'':8} {'':16} → {finding.mend}")
    if not mends:
        write("\nAll that is needed is here.")
        return 0
    (command, count), *_ = mends.most_common(1)
    write(f"\n{mends.total()} missing" + (f", start with: {command}" if count > 1 else ""))
    return 1


def parser() -> argparse.ArgumentParser:
    """The options of ``doctor``."""
    result = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot doctor",
        description="Say what is installed and what is missing, and the command that mends it. "
        "Exit status 1 where something needed is missing.",
    )
    variables = {name: os.environ.get(name) for name in ("ESPNET_ROOT", "AISHELL")}
    roots = {name: Path(value) if value else None for name, value in variables.items()}
    result.add_argument("--full", action="store_true", help="also import ESPnet and run the teacher (a minute)")
    result.add_argument("--teacher", metavar="DIR_OR_NAME", help="language model, or folder of dump-teacher")
    result.add_argument(
        "--espnet_root",
        type=Path,
        default=roots["ESPNET_ROOT"] or material.surrounding_checkout(),
        metavar="DIR",
        help="or ESPNET_ROOT; in a recipe's folder, its checkout",
    )
    result.add_argument("--aishell", type=Path, default=roots["AISHELL"], metavar="PATH", help="AISHELL-1, or AISHELL")
    result.add_argument("--workdir", type=Path, default=Path("."), metavar="DIR", help="folder whose disk is checked")
    return result


def main(argv: list[str] | None = None) -> int:
    """Examine and report.

    Args:
        argv: the words after ``doctor``.

    Returns:
        1 if something needed is missing, else 0.

    Raises:
        UserError: ``--workdir`` isn't a folder.
    """
    args = parser().parse_args(argv)
    if not args.workdir.is_dir():
        raise UserError(f"--workdir {args.workdir}: no such folder: give the one that you will work in")
    return report(examine(args))

"""The options of ``report --html``, and how they become a page."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.report.results import Result
from espnet_gmot.report.scored import Row
from espnet_gmot.report.utterances import Counted

_TITLE = "What the transfer did"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the page's options to those of ``report``."""
    page = parser.add_argument_group("the page")
    page.add_argument("--html", type=Path, metavar="FILE", help="all of it, curves, couplings and errors, as one page")
    page.add_argument("--title", help=f"of the page [{_TITLE}]")
    page.add_argument("--set", type=Path, metavar="DIR", help="data directory of --utt, e.g. dump/raw/dev")
    page.add_argument("--utt", nargs="+", default=[], help="utterances whose couplings the page draws")
    page.add_argument("--truth", type=Path, metavar="CTM", help="true times of --utt")
    page.add_argument("--alignment", type=Path, metavar="CSV", help="what align --measure wrote, to show as a table")
    page.add_argument("--knowledge", type=Path, metavar="CSV", help="what --write_knowledge wrote, to show as a table")
    page.add_argument("--frame_shift", type=float, help="seconds a frame, where the models read features")


def check(args: argparse.Namespace) -> None:
    """Raise a ``UserError`` where the page's options don't fit together, before any work."""
    if bool(args.utt) != bool(args.set):
        raise UserError("--set and --utt go together: the data directory and its utterances to draw")
    if args.utt and not args.html:
        raise UserError("--utt: says what the page draws: give --html FILE, or see the command align")
    for name in ("title", "alignment", "knowledge", "truth", "frame_shift"):
        if getattr(args, name) is not None and not args.html:
            raise UserError(f"--{name}: says what the page shows: give --html FILE")
    for name in ("truth", "frame_shift"):
        if getattr(args, name) is not None and not args.utt:
            raise UserError(f"--{name}: goes with --utt: it is of the utterances that the page draws")


def write(
    args: argparse.Namespace,
    exps: Mapping[str, Sequence[Path]],
    rows: Mapping[str, Sequence[Row]],
    results: Sequence[Result] = (),
    counted: Mapping[str, Sequence[Counted]] | None = None,
) -> None:
    """Write the page of ``args.html``; couplings are those of the first seed of every gmot system.

    Args:
        args: the command's options.
        exps: experiments by system.
        rows: scored sets by system.
        results: lines of a comparison's CSV.
        counted: errors by utterance of the same, by system.

    Raises:
        UserError: couplings are wanted, but no experiment has one.
    """
    from espnet_gmot.report.align_cli import true_spans
    from espnet_gmot.report.couplings import observe
    from espnet_gmot.report.knowledge import read_knowledge
    from espnet_gmot.report.measure import read_scores
    from espnet_gmot.report.page import Page

    truth = true_spans(args.truth) if args.truth else {}
    couplings = []
    for name, each in exps.items() if args.utt else ():
        couplings += observe(name, each[0], args.set, args.utt, truth, frame_shift=args.frame_shift)
    if args.utt and not couplings:
        raise UserError("--utt: none of these experiments has a coupling: give one of model: gmot")
    scores = read_scores(args.alignment) if args.alignment else []
    knowledge = read_knowledge(args.knowledge) if args.knowledge else []
    how = {"resamples": args.resamples, "baseline": args.baseline or "", "blocks": args.blocks}
    title = _TITLE if args.title is None else args.title
    Page(title, exps, rows, results, counted or {}, couplings, scores, knowledge, args.words, **how).write(args.html)

"""``align``: one recording as a trained experiment sees it; with ``--measure`` its alignments against true times."""

import argparse
import logging
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from espnet_gmot.config import PRESETS
from espnet_gmot.errors import UserError, check_least
from espnet_gmot.files import write_json, write_text
from espnet_gmot.kaldi.ctm import Timed, read_ctm, write_ctm
from espnet_gmot.kaldi.tables import read_table
from espnet_gmot.report.align import Span, coupling_spans, ctc_spans
from espnet_gmot.report.draw import coupling_figure, save
from espnet_gmot.report.measure import Score, plan_errors, score, span_errors, stamped, table, write_scores
from espnet_gmot.report.textgrid import textgrid

if TYPE_CHECKING:
    from espnet_gmot.hosts.observe import Observation, Observer

_LOG = logging.getLogger(__name__)


def write_alignment(observation: "Observation", out: Path, truth: list[Span] | None = None) -> list[Path]:
    """Write pictures and times of an observed recording.

    Args:
        observation: the recording.
        out: folder; files are named after the utterance, and after the tap where there are several.
        truth: when the tokens were spoken, where that is known.

    Returns:
        The files: ``.png`` of every coupling, ``.TextGrid``, ``.ctm`` of the first tier, ``.json``.

    Raises:
        UserError: nothing to align by: neither a coupling nor a CTC head.
    """
    seen, name = observation, observation.utterance.replace("/", "_")
    ctc = None
    if seen.log_probs is not None:
        ctc = ctc_spans(seen.log_probs, seen.labels, seen.pieces, seen.seconds)
    tiers, files = {}, []
    for coupled in seen.couplings:
        tier = "plan" if len(seen.couplings) == 1 else f"plan.{coupled.place}"
        tiers[tier] = coupling_spans(coupled.plan, seen.tokens, seen.seconds)
        figure = coupling_figure(
            coupled.plan,
            seen.tokens,
            seen.seconds,
            speech=seen.speech,
            rate=seen.rate,
            path=tiers[tier],
            ctc=ctc if len(seen.pieces) == len(seen.tokens) else None,  # other units have other rows
            log_probs=seen.log_probs,
            truth=truth if truth and len(truth) == len(seen.tokens) else None,
            title=f"{seen.utterance} ({coupled.place})",
        )
        files.append(out / f"{name}{tier.removeprefix('plan')}.png")
        save(figure, files[-1])
    if ctc is not None:
        tiers["ctc"] = ctc
    if truth:
        tiers["truth"] = truth
    if not tiers:
        raise UserError("this experiment has neither a coupling nor a CTC head to align by")
    grid, ctm, record = (out / f"{name}.{kind}" for kind in ("TextGrid", "ctm", "json"))
    write_text(grid, textgrid(tiers, seen.seconds))
    first = next(iter(tiers.values()))
    write_ctm(ctm, {seen.utterance: [Timed(s.token, s.start, s.end - s.start, s.confidence) for s in first]})
    spans = {tier: [asdict(span) for span in found] for tier, found in tiers.items()}
    write_json(record, {"utterance": seen.utterance, "seconds": seen.seconds, "tiers": spans, "stats": seen.stats})
    return [*files, grid, ctm, record]


def true_spans(path: Path) -> dict[str, list[Span]]:
    """When each token of each utterance was spoken, from a CTM file."""
    return {
        name: [Span(t.token, t.start, t.start + t.duration, t.start + t.duration / 2, 1.0) for t in tokens]
        for name, tokens in read_ctm(path).items()
    }


def spans_by_ctc(observer: "Observer", observations: Iterator["Observation"]) -> dict[str, list[Span]]:
    """When each token was spoken by an experiment's own forced alignment: the truth, where nobody knows better.

    Raises:
        UserError: the experiment has no CTC head.
    """
    found = {}
    for seen in observations:
        if seen.log_probs is None:
            raise UserError(f"--truth_exp {observer.exp}: has no CTC head to align by; give one that has")
        found[seen.utterance] = ctc_spans(seen.log_probs, seen.labels, seen.pieces, seen.seconds)
    return found


def measure(
    observer: "Observer", observations: Iterator["Observation"], truth: dict[str, list[Span]], presets: list[str]
) -> list[Score]:
    """Score every way to align that an experiment offers.

    Args:
        observer: the experiment.
        observations: recordings of it.
        truth: true spans of every token, by utterance.
        presets: members of the family whose transport is tried on the same features.

    Raises:
        UserError: an utterance has no true times, or other tokens.
    """
    errors: dict[str, list[np.ndarray]] = {}
    for seen in observations:
        spans = truth.get(seen.utterance, [])
        if len(spans) != len(seen.tokens):
            raise UserError(
                f"--truth: {seen.utterance} has {len(spans)} tokens there, but {len(seen.tokens)} in the plan: "
                "give a CTM with a line for each, or a --truth_exp with the same units"
            )
        for coupled in seen.couplings:
            place = "" if len(seen.couplings) == 1 else f"@{coupled.place}"
            plans = {"plan": coupled.plan} | {preset: coupled.coupled_as(preset=preset) for preset in presets}
            for name, plan in plans.items():
                errors.setdefault(name + place, []).append(plan_errors(plan, spans, seen.seconds))
        if seen.log_probs is not None and len(seen.labels) == len(spans):
            ctc = ctc_spans(seen.log_probs, seen.labels, seen.pieces, seen.seconds)
            errors.setdefault("ctc", []).append(span_errors(ctc, spans))
    return [
        score(str(observer.exp), observer.file.name if observer.file else "", name, parts)
        for name, parts in errors.items()
    ]


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot align",
        description="How a trained experiment couples one recording with its transcript: a heat map with the path of "
        "the most mass and CTC's spikes over it (PNG), and the tokens' times (TextGrid for Praat, CTM, JSON).",
    )
    parser.add_argument("exp", nargs="+", help="experiment folder, e.g. exp/asr_gmot; several with --measure")
    parser.add_argument("--wav", type=Path, help="a recording")
    parser.add_argument("--text", help="its transcript, written as in the training set")
    parser.add_argument("--set", type=Path, help="data directory, e.g. dump/raw/dev")
    parser.add_argument("--utt", nargs="+", help="utterances of --set")
    parser.add_argument("--out", type=Path, default=Path("align"), help="folder for the results (default: %(default)s)")
    parser.add_argument("--asr_model_file", nargs="+", help="parameters, by default valid.*.ave.pth, else *.best.pth")
    parser.add_argument("--teacher", help="the PLM's folder or hub name, where nothing else tells")
    parser.add_argument("--frame_shift", type=float, help="seconds a frame, where the model reads features")
    parser.add_argument(
        "--truth", type=Path, help="CTM with true times, to draw over the plan (demo-corpus: times.ctm)"
    )
    parser.add_argument(
        "--truth_exp",
        metavar="EXP",
        help="instead: the times of this experiment's CTC (of the best one; a poor truth: docs/seeing.md)",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="no pictures: errors against --truth over --set (or its --utt), as a table and OUT/alignment.csv",
    )
    parser.add_argument("--max_utts", type=int, help="with --measure: the first so many utterances alone")
    parser.add_argument(
        "--preset",
        nargs="+",
        default=[],
        choices=[name for name, options in PRESETS.items() if "coupling" not in options and name != "ctc"],
        help="with --measure: these members' transport on the same features, beside the plan as trained",
    )
    return parser


def _names(args: argparse.Namespace) -> list[str]:
    """Utterances of --set to look at."""
    if not args.measure:
        return args.utt
    if args.set is None or (args.truth is None and args.truth_exp is None):
        raise UserError("--measure needs --set DIR and --truth FILE.ctm (or --truth_exp EXP)")
    return list(islice(args.utt or read_table(args.set / "text"), args.max_utts))


def _check(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other or would be ignored."""
    check_least(args, 1, "max_utts")
    if args.truth and args.truth_exp:
        raise UserError(f"--truth_exp {args.truth_exp}: --truth tells the times already; give one of them")
    if args.measure:
        return
    if len(args.exp) > 1:
        raise UserError(f"{args.exp[1]}: pictures are drawn of one experiment at a time; several need --measure")
    if len(args.asr_model_file or ()) > 1:
        raise UserError(
            f"--asr_model_file {args.asr_model_file[1]}: pictures are drawn of one file at a time, with its own --out; "
            "several need --measure"
        )
    for option in ("preset", "max_utts"):
        if value := getattr(args, option):
            words = " ".join(value) if isinstance(value, list) else value
            raise UserError(f"--{option} {words}: would be ignored without --measure: add that, or leave it out")


def main(argv: list[str] | None = None) -> int:
    """Run the command; raises UserError for bad input."""
    args = get_parser().parse_args(argv)
    by_wav = args.wav is not None and args.text is not None
    by_set = args.set is not None and (args.utt is not None or args.measure)
    if by_wav == by_set and not args.measure:
        raise UserError("say which recording: either --wav FILE --text TRANSCRIPT or --set DIR --utt NAME")
    _check(args)
    names = [] if by_wav else _names(args)
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("espnet_gmot.hosts.observe").setLevel(logging.INFO)
    from espnet_gmot.hosts.observe import Observer

    def observe(observer: Observer) -> Iterator["Observation"]:
        """The recordings that were asked for."""
        if by_wav:
            return iter([observer.heard(args.wav, args.text)])
        return (observer.recorded(args.set, name, args.frame_shift) for name in names)

    truth = true_spans(args.truth) if args.truth else {}
    if args.truth_exp:
        peer = Observer(args.truth_exp, teacher=args.teacher)
        truth = spans_by_ctc(peer, observe(peer))
    scores: list[Score] = []
    for exp, model_file in product(args.exp, args.asr_model_file or [None]):
        observer = Observer(exp, model_file, args.teacher)
        if args.measure:
            scores += measure(observer, observe(observer), truth, args.preset)
            continue
        for observation in observe(observer):
            if args.truth and observation.utterance not in truth:
                raise UserError(f"--truth {args.truth}: no utterance {observation.utterance}")
            for path in write_alignment(observation, args.out, truth.get(observation.utterance)):
                print(path)
    if scores:
        write_scores(args.out / "alignment.csv", stamped(scores))
        print(table(scores))
    return 0

"""``align``: one recording as a trained experiment sees it: the coupling as a picture, the tokens' times as files."""

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_json, write_text
from espnet_gmot.kaldi.ctm import Timed, read_ctm, write_ctm
from espnet_gmot.report.align import Span, coupling_spans, ctc_spans
from espnet_gmot.report.draw import coupling_figure, save
from espnet_gmot.report.textgrid import textgrid

if TYPE_CHECKING:
    from espnet_gmot.hosts.observe import Observation

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
            title=f"{seen.utterance}: coupling of {coupled.place} and the teacher's tokens",
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
    write_ctm(
        ctm,
        {seen.utterance: [Timed(s.token, s.start, s.end - s.start, s.confidence) for s in first]},
    )
    spans = {tier: [asdict(span) for span in found] for tier, found in tiers.items()}
    write_json(record, {"utterance": seen.utterance, "seconds": seen.seconds, "tiers": spans, "stats": seen.stats})
    return [*files, grid, ctm, record]


def true_spans(path: Path, utterance: str) -> list[Span]:
    """When each token of an utterance was spoken, from a CTM file.

    Raises:
        UserError: the file lacks the utterance.
    """
    times = read_ctm(path)
    if utterance not in times:
        raise UserError(f"--truth {path}: no utterance {utterance}")
    return [Span(t.token, t.start, t.start + t.duration, t.start + t.duration / 2, 1.0) for t in times[utterance]]


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot align",
        description="How a trained experiment couples one recording with its transcript: a heat map with the path of "
        "the most mass and CTC's spikes over it (PNG), and the tokens' times (TextGrid for Praat, CTM, JSON). Run it "
        "where the experiment was trained.",
    )
    parser.add_argument("exp", help="experiment folder, e.g. exp/asr_gmot")
    parser.add_argument("--wav", type=Path, help="a recording")
    parser.add_argument("--text", help="its transcript, written as in the training set")
    parser.add_argument("--set", type=Path, help="data directory, e.g. dump/raw/dev")
    parser.add_argument("--utt", nargs="+", help="utterances of --set")
    parser.add_argument("--out", type=Path, default=Path("align"), help="folder for the results (default: %(default)s)")
    parser.add_argument("--asr_model_file", help="parameters, by default valid.*.ave.pth, else *.best.pth")
    parser.add_argument("--teacher", help="the PLM's folder or hub name, where nothing else tells")
    parser.add_argument("--frame_shift", type=float, help="seconds a frame, where the model reads features")
    parser.add_argument("--truth", type=Path, help="CTM with true times, to draw over the plan")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; raises UserError for bad input."""
    args = get_parser().parse_args(argv)
    by_wav, by_set = args.wav is not None and args.text is not None, args.set is not None and args.utt is not None
    if by_wav == by_set:
        raise UserError("say which recording: either --wav FILE --text TRANSCRIPT or --set DIR --utt NAME")
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("espnet_gmot.hosts.observe").setLevel(logging.INFO)
    from espnet_gmot.hosts.observe import Observer

    observer = Observer(args.exp, args.asr_model_file, args.teacher)
    if by_wav:
        observations = [observer.heard(args.wav, args.text)]
    else:
        observations = [observer.recorded(args.set, name, args.frame_shift) for name in args.utt]
    for observation in observations:
        truth = true_spans(args.truth, observation.utterance) if args.truth else None
        for path in write_alignment(observation, args.out, truth):
            print(path)
    return 0

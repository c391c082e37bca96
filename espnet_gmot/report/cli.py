"""``report``: character error rates of experiments: a table, tests of differences, and where the errors lie."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import check_file
from espnet_gmot.report import html, knowledge, sounds
from espnet_gmot.report.cells import LATE, NOTE, read_note
from espnet_gmot.report.results import Result, read_results
from espnet_gmot.report.scored import Row, check_comparable, collect, token_list
from espnet_gmot.report.tables import differences, errors, group, lines, means, render, uncertainty
from espnet_gmot.report.utterances import Counted, read_utterances, write_utterances


def experiments(words: Sequence[str]) -> dict[str, list[Path]]:
    """Experiments by system from ``NAME=DIR`` words; the same name again is another seed.

    Raises:
        UserError: a word of another form, or a folder given twice.
    """
    found: dict[str, list[Path]] = {}
    for word in words:
        system, equals, folder = word.partition("=")
        if not (system and equals and folder) or any(character.isspace() for character in system):
            raise UserError(f"--exp {word}: write NAME=DIR, the name without spaces, e.g. ctc=exp/asr_ctc")
        if Path(folder) in found.setdefault(system, []):
            raise UserError(f"--exp {word}: given twice; give each experiment once")
        found[system].append(Path(folder))
    return found


def of_comparison(folder: Path, systems: Sequence[str], partial: bool = False) -> dict[str, list[Path]]:
    """Experiments by system of a comparison's folder, by seed.

    Args:
        folder: its work folder.
        systems: which, in this order; empty takes all.
        partial: whether to leave out cells that are begun but not scored.

    Raises:
        UserError: no comparison there, or none of a system, or a cell is unfinished.
    """
    notes = {path.parent: read_note(path.parent) for path in folder.glob(f"exp/*/{NOTE}")}
    if not notes:
        raise UserError(f"--comparison {folder}: no exp/*/{NOTE}; give run_comparison.sh's --workdir")
    names = list(systems) or list(dict.fromkeys(note["system"] for note in sorted(notes.values(), key=_order)))
    found = {}
    for name in names:
        cells = sorted((note["seed"], exp) for exp, note in notes.items() if note["system"] == name)
        if not cells:
            there = ", ".join(sorted({note["system"] for note in notes.values()}))
            raise UserError(f"--systems: no {name} in {folder}; there are {there}")
        # a cell that is begun has no sets yet
        if (open_ := next((exp for _, exp in cells if not notes[exp].get("sets", True)), None)) and not partial:
            raise UserError(f"{open_}: is not scored yet; finish the comparison, or --partial leaves it out")
        found[name] = [exp for _, exp in cells if notes[exp].get("sets", True)]
    if not any(found.values()):
        raise UserError(f"--comparison {folder}: none of its cells is scored yet; wait for the first")
    return {name: exps for name, exps in found.items() if exps}


def _order(note: dict) -> tuple[int, str]:
    return note["system"] != "ctc", note["system"]


def check_seeds(seeds: Mapping[tuple[str, str], int], partial: bool) -> None:
    """Check that every system has as many seeds on every set.

    Args:
        seeds: how many, by system and set.
        partial: whether a difference is allowed.

    Raises:
        UserError: naming the system that lacks some.
    """
    most = max(seeds.values())
    (system, name), count = min(seeds.items(), key=lambda item: item[1])
    if count < most and not partial:
        other = next(key[0] for key, value in seeds.items() if value == most)
        raise UserError(
            f"{system} has {count} of {most} seeds on {name} ({other} has all): train the missing cells, or --partial"
        )


def get_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot report",
        description="Character error rates of scored experiments: a table, then lines 'CER SYSTEM SET VALUE'. "
        "Counts are those of score_cer/result.txt (sclite's, or jiwer's without sclite), else of the trn files.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--exp",
        nargs="+",
        metavar="NAME=DIR",
        help="e.g. ctc=exp/asr_ctc; a name given again is another seed",
    )
    source.add_argument("--comparison", type=Path, metavar="DIR", help="all cells of run_comparison.sh's --workdir")
    source.add_argument("--csv", type=Path, metavar="FILE", help="a comparison's results.csv alone: means over seeds")
    parser.add_argument("--systems", default="", help="systems of the comparison, in this order; default: all")
    parser.add_argument("--sets", default="", help='sets to report, e.g. "dev test"; default: all')
    parser.add_argument("--inference_tag", help="decoding folder, where an experiment has several")
    parser.add_argument(
        "--partial", action="store_true", help="report what is there: systems with fewer seeds, cells left out"
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="test every other system's difference from this one; on the page [the first]",
    )
    parser.add_argument("--errors", action="store_true", help="where errors lie: homophones, unseen characters, place")
    parser.add_argument(
        "--teacher",
        nargs="+",
        metavar="MODEL",
        help="with --errors: what these masked language models can tell of them (folders or Hugging Face names)",
    )
    parser.add_argument(
        "--write_sounds", type=Path, metavar="FILE", help="with --errors --baseline: substitutions by sound"
    )
    parser.add_argument("--write_knowledge", type=Path, metavar="FILE", help="that table, as CSV")
    parser.add_argument(
        "--blocks",
        choices=("speaker", "utterance"),
        help="standard errors by resampling these [speaker with --baseline]",
    )
    parser.add_argument("--resamples", type=int, default=10_000, help="bootstrap resamples [10000]")
    parser.add_argument("--write_utterances", type=Path, metavar="FILE", help="errors of every utterance, as CSV")
    parser.add_argument("--anonymous", action="store_true", help="in that file: numbers for speakers and utterances")
    parser.add_argument("--utterances", type=Path, metavar="FILE", help="such a file, for --csv with --baseline")
    html.add_options(parser)
    return parser


def from_csv(args: argparse.Namespace) -> str:
    """The report of a CSV file."""
    for option in ("errors", "write_utterances", *(() if args.utterances else ("baseline", "blocks"))):
        if getattr(args, option):
            way = ", or --utterances" if option in ("baseline", "blocks") else ""
            raise UserError(f"--{option}: --csv has sums alone: give --exp or --comparison instead{way}")
    results = read_results(args.csv)
    systems = list(dict.fromkeys(args.systems.split() or [result.system for result in results]))
    sets = list(dict.fromkeys(args.sets.split() or [result.set for result in results]))
    found: dict[tuple[str, str], list[Result]] = {}
    for key in ((system, name) for name in sets for system in systems):
        found[key] = [result for result in results if (result.system, result.set) == key]
        if not found[key]:
            raise UserError(f"{args.csv}: no {key[0]} on {key[1]}; score it, or choose --systems and --sets")
    check_seeds({key: len(each) for key, each in found.items()}, args.partial)
    for name in sets:
        sizes = {result.characters: result for result in results if result.set == name and result.system in systems}
        if len(sizes) > 1:
            one, other = list(sizes.values())[:2]
            raise UserError(
                f"{args.csv}: {name} has {one.characters} characters for {one.system} seed {one.seed}, "
                f"{other.characters} for {other.system} seed {other.seed}: other test sets can't be compared"
            )
    rates = {key: [result.cer for result in each] for key, each in found.items()}
    parts = [means(rates, late := {key for key, each in found.items() if any(result.late for result in each)})]
    counted: dict[str, list[Counted]] = {}
    if args.utterances:
        there = read_utterances(args.utterances)
        groups = {key: _seeded(there.get(key, []), each, args.utterances) for key, each in found.items()}
        parts += tested(groups, args)
        for (system, _), each in groups.items():
            counted.setdefault(system, []).extend(each)
    if args.html:
        html.write(args, {}, {}, [result for each in found.values() for result in each], counted)
    return "\n\n".join([*parts, *([LATE] if late else []), lines(rates)])


def _seeded(counted: Sequence[Counted], results: Sequence[Result], path: Path) -> list[Counted]:
    """Errors by utterance with the seeds of their results; columns without any are in the order of the seeds."""
    results = sorted(results, key=lambda result: result.seed)
    seeds = [result.seed for result in results]
    told = [each.seed for each in counted]
    if len(told) != len(seeds) or (None not in told and sorted(each for each in told if each is not None) != seeds):
        there = f"; there are {' '.join(map(str, told))}" if told and None not in told else ""
        names = f"{len(seeds)} seeds" if not there else f"seeds {' '.join(map(str, seeds))}"
        raise UserError(f"{path}: not the {names} of {results[0].system} on {results[0].set}{there}")
    late = {result.seed: result.late for result in results}
    known = seeds if None in told else [each for each in told if each is not None]
    return [replace(each, seed=seed, late=late[seed]) for each, seed in zip(counted, known, strict=True)]


def tested(groups: Mapping[tuple[str, str], Sequence[Row | Counted]], args: argparse.Namespace) -> list[str]:
    """The tables of resampling that are asked for."""
    parts = []
    if args.blocks or args.baseline:
        parts.append(uncertainty(groups, args.blocks or "speaker", args.resamples))
    if args.baseline:
        if lacking := next((name for _, name in groups if (args.baseline, name) not in groups), None):
            there = ", ".join(dict.fromkeys(system for system, _ in groups))
            raise UserError(f"--baseline {args.baseline}: not scored on {lacking}; there are {there}")
        parts.append(differences(groups, args.baseline, args.blocks or "speaker", args.resamples))
    return parts


def from_experiments(args: argparse.Namespace) -> str:
    """The report of experiments."""
    exps = (
        of_comparison(args.comparison, args.systems.split(), args.partial) if args.comparison else experiments(args.exp)
    )
    sets = list(dict.fromkeys(args.sets.split()))
    rows = {
        name: [row for exp in each for row in collect(name, exp, sets, args.inference_tag)]
        for name, each in exps.items()
    }
    check_comparable(rows, exps)
    groups = group([row for each in rows.values() for row in each])
    check_seeds({key: len(each) for key, each in groups.items()}, args.partial)
    rates = {key: [row.counts.rate for row in each] for key, each in groups.items()}
    parts = [render([row for each in rows.values() for row in each])]
    late = {key for key, each in groups.items() if any(row.late for row in each)}
    if any(len(each) > 1 for each in rates.values()):
        parts.append(means(rates, late))
    parts += tested(groups, args)  # it sees whether there is such a baseline
    if args.html:
        html.write(args, exps, rows)
    if args.write_utterances:
        write_utterances(args.write_utterances, groups, anonymous=args.anonymous)
    if args.errors:
        first = next(iter(exps.values()))[0]
        if (tokens := token_list(first)) is None:
            raise UserError(f"{first}/config.yaml: no such file; --errors reads the token list there")
        parts.append(errors(groups, tokens))
        if args.baseline:
            heard = sounds.soundings(groups, args.baseline, args.resamples, args.blocks)
            parts.append(sounds.render(heard, args.baseline))
            if args.write_sounds:
                sounds.write_soundings(args.write_sounds, heard)
        if args.teacher:
            from espnet_gmot.report import ask  # torch: no other report needs it

            parts.append(knowledge.render(found := ask.knowledge(groups, args.teacher)))
            if args.write_knowledge:
                knowledge.write_knowledge(args.write_knowledge, found)
    return "\n\n".join([*parts, *([LATE] if late else []), lines(rates)])


def main(argv: list[str] | None = None) -> int:
    """Run the command; raises UserError where something was not scored or can't be compared."""
    words = list(sys.argv[2:] if argv is None else argv)
    args = get_parser().parse_args(words)
    args.words = ["report", *words]
    html.check(args)
    _check(args)
    print(from_csv(args) if args.csv else from_experiments(args))
    if args.html:
        print(args.html)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise a ``UserError`` where options don't fit together, before any work."""
    if args.systems and args.exp:
        raise UserError("--systems: chooses those of --comparison or --csv; of --exp, name the ones that you want")
    if args.inference_tag and args.csv:
        raise UserError("--inference_tag: --csv has the decodings that were scored; give --exp or --comparison instead")
    if args.utterances and not (args.csv and (args.baseline or args.blocks)):
        raise UserError("--utterances: goes with --csv and --baseline or --blocks")
    for path in (args.html, args.write_utterances, args.write_knowledge, args.write_sounds):
        if path is not None:
            check_file(path)
    if args.anonymous and not args.write_utterances:
        raise UserError("--anonymous: goes with --write_utterances FILE")
    if args.teacher and not args.errors:
        raise UserError("--teacher: goes with --errors")
    if args.write_knowledge and not args.teacher:
        raise UserError("--write_knowledge: goes with --teacher MODEL")
    if args.write_sounds and not (args.errors and args.baseline):
        raise UserError("--write_sounds: goes with --errors --baseline NAME")
    if args.resamples < 100:
        raise UserError(f"--resamples {args.resamples}: must be at least 100")

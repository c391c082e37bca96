"""Write the tables and pictures of the experiments out of their CSV files: `make results`, or `--check` alone.

NAME.csv is a comparison's `results.csv`, NAME_utterances.csv the errors by utterance that `report --write_utterances`
writes, docs/gpu*.json what benchmarks/gpu.py does. What pages show between `<!-- results: NAME -->` and `<!-- end -->`
is made of these.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import gpu_tables
import matplotlib
import numpy as np
from labels import CONTRASTS, DEEP, FAMILY, MEMBERS, MINI, READ, SPEECH
from page_tables import alignment_table, course_table, knowledge_table, markdown, sounds_table

matplotlib.use("Agg")

from espnet_gmot.report.courses import courses
from espnet_gmot.report.courses import figure as courses_figure
from espnet_gmot.report.differences import Difference, differences
from espnet_gmot.report.differences import figure as differences_figure
from espnet_gmot.report.doses import figure, order, responses
from espnet_gmot.report.measure import read_scores
from espnet_gmot.report.results import Result, read_results
from espnet_gmot.report.statistics import mean_interval
from espnet_gmot.report.tables import blocks_of, probability
from espnet_gmot.report.utterances import Counted, read_utterances

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = (ROOT / "docs/results.md", ROOT / "docs/transport.md", ROOT / "README.md")
RESAMPLES = 10_000


class Experiment:
    """A comparison's numbers.

    Args:
        name: of its files here, NAME.csv and NAME_utterances.csv.
        baseline: what the others are compared with.
    """

    def __init__(self, name: str, baseline: str = "ctc") -> None:
        self.baseline = baseline
        self.results: list[Result] = read_results(HERE / f"{name}.csv")
        self.utterances: dict[tuple[str, str], list[Counted]] = read_utterances(HERE / f"{name}_utterances.csv")
        for (system, part), counted in self.utterances.items():
            found = sorted(result.seed for result in self.results if (result.system, result.set) == (system, part))
            if len(counted) != len(found):
                sys.exit(f"{name}: {len(counted)} seeds of {system} on {part} by utterance, {len(found)} in {name}.csv")
        self.parts = [part for part in ("dev", "test") if any(result.set == part for result in self.results)]
        self.last = self.parts[-1]
        # a bootstrap each, and table, README and picture show the same
        self._differences: dict[tuple[str, str], Difference | None] = {}

    def systems(self) -> list[str]:
        """In the order of the table: the baseline and its like first, then by what the teacher has read."""
        names = dict.fromkeys(result.system for result in self.results)
        return sorted(names, key=lambda name: (name != self.baseline, order(name)))

    def rates(self, system: str, part: str) -> list[float]:
        """CER in %, one for each seed."""
        return [100 * result.cer for result in self.results if (result.system, result.set) == (system, part)]

    def table(self, labels: dict[str, str], elsewhere: Collection[str] = ()) -> str:
        """Mean CER with its 95 % interval over seeds, and the difference from the baseline.

        Args:
            labels: what to call the systems, in the order of the table.
            elsewhere: systems that stand in another table.
        """
        if differing := (set(self.systems()) - set(elsewhere)) ^ labels.keys():
            sys.exit(f"no label, or no training, of {', '.join(sorted(differing))}")
        head = ["", "seeds", *(f"CER {part}, % (95 %)" for part in self.parts)]
        head += [f"{self.last}: less {self.baseline}'s (95 %)", "seed by seed", "p", "p, seeds unpaired"]
        rows = []
        for system, label in labels.items():
            cells = [label, str(len(self.rates(system, self.parts[0])))]
            cells += [_mean(self.rates(system, part)) for part in self.parts]
            rows.append([*cells, *self.tested(system)])
        return markdown(head, rows)

    def front(self, systems: dict[str, str]) -> str:
        """A short table: the mean and each seed's rate on the last set, and the difference seed by seed."""
        rows = []
        for system, label in systems.items():
            rates = self.rates(system, self.last)
            mean = f"{sum(rates) / len(rates):.1f} ({', '.join(f'{rate:.1f}' for rate in rates)})"
            difference, _, *chance = self.tested(system)
            rows.append([label, mean, difference, *chance])
        head = ["", f"CER on {self.last}, %: mean (each seed)", "difference (95 %)", "p", "p, seeds unpaired"]
        return markdown(head, rows)

    def tested(self, system: str, baseline: str | None = None) -> tuple[str, str, str, str]:
        """Difference from the baseline on the last set with its interval, seed by seed, and both p-values."""
        if (found := self.difference(system, baseline or self.baseline)) is None:
            return "", "", "", ""
        return _interval(found), _each(found), probability(found.p_value), probability(found.unpaired)

    def difference(self, system: str, baseline: str) -> Difference | None:
        """A system's difference from another with the same seeds on the last set; None where either lacks it."""
        if (system, baseline) not in self._differences:
            seeds, theirs = self.seeds(system), self.utterances.get((baseline, self.last), [])
            rows = [row for seed, row in zip(self.seeds(baseline), theirs, strict=True) if seed in seeds]
            ours = self.utterances.get((system, self.last))
            found = differences({baseline: rows, system: ours}, baseline, RESAMPLES) if rows and ours else []
            self._differences[system, baseline] = next(iter(found), None)
        return self._differences[system, baseline]

    def averaged(self, systems: list[str]) -> str:
        """The mean of several systems, each with all of the baseline's seeds, less the baseline, on every set."""
        said = [f"on {part} {_told(self.contrast(systems, [self.baseline], part))}" for part in reversed(self.parts)]
        return f"All {len(systems)} on average, less {self.baseline}: {'; '.join(said)}."

    def contrast(self, systems: Sequence[str], others: Sequence[str], part: str) -> Difference:
        """The mean of several systems less that of others, all with the same seeds, in pairs."""
        means = {"others": self.mean(others, part), "mean": self.mean(systems, part)}
        (found,) = differences(means, "others", RESAMPLES)
        return found

    def mean(self, systems: Sequence[str], part: str) -> list[Counted]:
        """Errors of each utterance, the mean of several systems with the same seeds, one for each seed."""
        return [
            replace(rows[0], wrong={key: sum(row.wrong[key] for row in rows) / len(rows) for key in rows[0].wrong})
            for rows in zip(*(self.utterances[system, part] for system in systems), strict=True)
        ]

    def seeds(self, system: str) -> list[int]:
        """Those of a system on the last set, in the order of its utterances' columns."""
        return sorted(result.seed for result in self.results if (result.system, result.set) == (system, self.last))

    def less(self, system: str, baseline: str, sentence: str) -> str:
        """One system less another on the last set, as a sentence that begins like this."""
        difference, each, paired, unpaired = self.tested(system, baseline)
        return f"{sentence}, on {self.last}: {difference}, each {each}; p {paired}, seeds unpaired {unpaired}."

    def with_edges(self, *pairs: tuple[str, str]) -> str:
        """A line for each system with edges and its like without."""
        lines = [
            self.less(edges, nodes, f"With edges less without: {edges} less {nodes}".replace("-x10", ""))
            for edges, nodes in pairs
        ]
        return "  \n".join(lines)

    def picture(self, labels: dict[str, str]) -> Callable[[Path], None]:
        """Draws them."""
        found = [each for name in labels if (each := self.difference(name, self.baseline)) is not None]
        short = {name: re.sub(r" \(`.*`\)", "", label) for name, label in labels.items()}
        return lambda path: differences_figure(found, labels[self.baseline], short).savefig(path, dpi=130)

    def origin(self) -> str:
        """When and with what, in one line."""
        blocks = blocks_of(self.utterances[self.baseline, self.last][0])
        dates = sorted(result.date[:10] for result in self.results)
        commits = ", ".join(dict.fromkeys(result.commit for result in self.results))
        hours = {(result.system, result.seed): result.cpu_hours for result in self.results}
        last = self.results[-1]
        return (
            f"{len(hours)} trainings, {sum(hours.values()):.1f} processor hours, {dates[0]} to {dates[-1]}, "
            f"commit {commits}; "
            f"{last.versions}; {last.hardware}. Errors counted by {last.counted_by}; "
            f"intervals and p-values of differences: seeds in pairs, {blocks}s resampled. "
            f"Correlation of {self.baseline}'s CER on {self.last} with another system's over the seeds they share: "
            f"{self.agreement():+.2f} on average."
        )

    def agreement(self) -> float:
        """How much a seed that is hard for the baseline is hard for another system: what pairing them is worth."""
        rates = {
            name: {each.seed: each.cer for each in self.results if (each.system, each.set) == (name, self.last)}
            for name in self.systems()
        }
        theirs, found = rates.pop(self.baseline), []
        for ours in rates.values():
            if len(shared := sorted(theirs.keys() & ours.keys())) > 2:
                found.append(np.corrcoef([ours[seed] for seed in shared], [theirs[seed] for seed in shared])[0, 1])
        return float(np.mean(found))


def _interval(found: Difference) -> str:
    return f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def _told(found: Difference) -> str:
    return f"{_interval(found)[:-1]}; p {_chance(found)})"


def _chance(found: Difference) -> str:
    return f"{probability(found.p_value)}, seeds unpaired {probability(found.unpaired)}"


def _each(found: Difference) -> str:
    """Seed by seed."""
    return ", ".join(f"{value:+.1f}" for value in found.each)


def _mean(rates: list[float]) -> str:
    if not rates:
        return "–"
    mean, half = mean_interval(rates)
    return f"{mean:.2f} ± {half:.2f}" if len(rates) > 1 else f"{mean:.2f}"


def fill(text: str, blocks: dict[str, str]) -> str:
    """A page with its blocks as the CSV files have them."""
    marked = "<!-- results: {0} -->\n{1}\n<!-- end -->"
    return re.sub(
        r"<!-- results: (\S+) -->\n.*?<!-- end -->", lambda m: marked.format(m[1], blocks[m[1]]), text, flags=re.S
    )


def main() -> None:
    """Redraw, or check that nothing would change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing: fail where a page isn't what the CSV files say"
    )
    args = parser.parse_args()
    blocks, pictures = contents()
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf8")
        if (new := fill(text, blocks)) != text:
            stale.append(str(page.relative_to(ROOT)))
            if not args.check:
                page.write_text(new, encoding="utf8")
    for name, draw in pictures.items():
        if args.check:
            stale += [name] if not (HERE / name).is_file() else []
        else:
            draw(HERE / name)
    print(f"results: {', '.join(stale) or 'nothing'} {'is stale: make results' if args.check else 'changed'}")
    sys.exit(bool(args.check and stale))


Contents = tuple[dict[str, str], dict[str, Callable[[Path], None]]]
"""What stands between the marks, by name, and how each picture is drawn."""


def contents() -> Contents:
    """All of it."""
    blocks, pictures = {}, {}
    for part in (of_doses, of_the_family, of_alignments, of_speech, of_gpus):
        texts, drawn = part()
        blocks |= texts
        pictures |= drawn
    return blocks, pictures


def of_doses() -> Contents:
    """What the teacher has read."""
    dose = Experiment("dose")
    labels = {"ctc": "CTC", "ctc-long": "CTC, half as many steps again"}
    for system in dose.systems():
        preset, _, what = system.rpartition("-")
        labels.setdefault(system, f"{preset}; teacher: {READ.get(what)}")
    front = {
        "ctc": "CTC",
        "ctc-long": "CTC, half as many training steps again",
        "gmot-none": "GM-OT, the language model has random weights",
        "gmot-blank": "GM-OT, random weights, and all characters are the same to it",
        "gmot-own": "GM-OT, it has read the transcripts alone",
        "gmot-x10": "GM-OT, it has read ten times as much",
    }
    blocks = {
        "dose": dose.table(labels),
        "dose-front": dose.front(front),
        "dose-average": all_doses(dose),
        "dose-origin": dose.origin(),
        "dose-knowledge": knowledge_table(HERE / "dose_knowledge.csv", read_in(dose, "gmot")),
    }
    response = responses(dose.results)[dose.last]
    return blocks, {"dose.png": lambda path: figure(response).savefig(path, dpi=130)}


def all_doses(dose: Experiment) -> str:
    """All teachers together against CTC, and against CTC that was trained longer."""
    taught = [system for system in dose.systems() if order(system) >= 0]
    lines = [
        f"All {len(taught)} on average, less {baseline}, on {part}: {_told(dose.contrast(taught, [baseline], part))}."
        for baseline in (dose.baseline, "ctc-long")
        for part in reversed(dose.parts)
    ]
    return "  \n".join(lines)


def read_in(experiment: Experiment, member: str) -> dict[str, str]:
    """What the teachers have read that a member of the family was tried with."""
    return {dose: label for dose, label in READ.items() if f"{member}-{dose}" in experiment.systems()}


def of_the_family() -> Contents:
    """Members of the family on the synthetic corpus."""
    family = Experiment("family")
    read = read_in(family, "ot")
    doses = [f"{member}-{dose}" for member in MEMBERS for dose in read]
    alike = (("gmot", "gmot-nodes"), ("gmot-t", "gmot-t-nodes"), ("gmot", "ot"), ("gmot-t", "tot"), ("gmot-u", "uot"))
    pairs = [(f"{edges}-x10", f"{nodes}-x10") for edges, nodes in alike]
    blocks = {
        "family": family.table(FAMILY, elsewhere=set(doses) - FAMILY.keys()),
        "family-origin": family.origin(),
        "family-edges": f"{family.with_edges(*pairs, ('gmot-blank', 'ot-blank'))}  \n{edges_alone(family)}",
        "family-knowledge": "  \n".join(
            family.less(f"{preset}-x10", f"{preset}-blank", f"{preset}: the teacher less the one without characters")
            for preset in ("ot", "gmot", "gmot-t")
        ),
        "family-doses": markdown(
            ["teacher", *MEMBERS],
            [[label, *(family.tested(f"{member}-{dose}")[0] for member in MEMBERS)] for dose, label in read.items()],
        ),
        "family-contrasts": contrasts(family),
    }
    tried = [result for result in family.results if result.system in (family.baseline, *doses)]
    response = responses(tried)[family.last]
    return blocks, {
        "family.png": family.picture(FAMILY),
        "family_doses.png": lambda path: figure(response).savefig(path, dpi=130),
    }


def edges_alone(family: Experiment) -> str:
    """Both members with edges less themselves without."""
    systems = ("gmot", "gmot-t")
    found = family.contrast(*([f"{name}{end}-x10" for name in systems] for end in ("", "-nodes")), family.last)
    return f"Both that differ in edges alone, on average, on {family.last}: {_told(found)}."


def contrasts(family: Experiment) -> str:
    """Kinds of teachers compared: a column for each member, and one for their mean."""

    def cell(members: Sequence[str], teachers: Sequence[str], others: Sequence[str]) -> str:
        """Teachers less others, on average over members."""
        ours, theirs = (
            [f"{member}-{teacher}" for member in members for teacher in group] for group in (teachers, others)
        )
        found = family.contrast(ours, theirs, family.last)
        return f"{_interval(found)}; p {probability(found.p_value)}"

    rows = []
    for label, (teachers, others) in CONTRASTS.items():
        columns = [*((member,) for member in MEMBERS), MEMBERS]
        rows.append([label, *(cell(members, teachers, others) for members in columns)])
    return markdown(["teacher", *MEMBERS, "all four"], rows)


def of_alignments() -> Contents:
    """Times of plans on the synthetic corpus."""
    lines = courses(read_scores(HERE / "alignment_epochs.csv"))
    blocks = {"alignment": alignment_table(HERE / "alignment.csv"), "alignment-epochs": course_table(lines)}
    return blocks, {"alignment.png": lambda path: courses_figure(lines).savefig(path, dpi=130)}


def of_speech() -> Contents:
    """Real speech."""
    speech = Experiment("cv")
    teachers = {
        "e5a": "multilingual-e5-small, adapted for two epochs (1,514 updates)",
        "bert": "four layers, 192 wide, from scratch, ten epochs (7,570 updates)",
    }
    blocks = {
        "cv": speech.table(SPEECH),
        "cv-front": speech.front({name: SPEECH[name] for name in ("ctc", "gmot-t", "clock", "permuted", "blank")}),
        "cv-average": speech.averaged(
            ["gmot-t", "clock", "clock-adapted", "clock-bert", "gmot", "tot", "ot", "kd-att"]
        ),
        "cv-edges": speech.with_edges(("gmot", "ot"), ("gmot-t", "tot")),
        "cv-knowledge": "  \n".join(
            speech.less(*pair, sentence)
            for pair, sentence in (
                (("gmot-t", "permuted"), "The teacher less the one that takes each character for another"),
                (("gmot-t", "blank"), "The teacher less the one to which all are alike"),
                (("permuted", "blank"), "The one that takes each for another less the one to which all are alike"),
            )
        ),
        "cv-clock": speech.less(
            "clock", "clock-blank", "With frame weights, the teacher less the one without characters"
        ),
        "cv-sounds": sounds_table(HERE / "cv_sounds.csv", SPEECH, speech.parts),
        "cv-knowledge-of-errors": knowledge_table(HERE / "cv_knowledge.csv", teachers),
        "cv-alignment": alignment_table(HERE / "cv_alignment.csv"),
        "cv-origin": speech.origin(),
    }
    deep = Experiment("cv6", "ctc6")
    mini = Experiment("mini")
    blocks |= {
        "cv6": deep.table(DEEP),
        "cv6-front": deep.front({"ctc6": "CTC, six blocks", "clock-adapted6": "GM-OT"}),
        "cv6-origin": deep.origin(),
        "cv6-sounds": sounds_table(HERE / "cv6_sounds.csv", DEEP, deep.parts),
        "mini": mini.table(MINI),
        "mini-average": mini.averaged([name for name in MINI if name != mini.baseline]),
        "mini-edges": mini.with_edges(("gmot", "ot"), ("gmot-t", "tot")),
        "mini-origin": mini.origin(),
    }
    return blocks, {"cv.png": speech.picture(SPEECH)}


def of_gpus() -> Contents:
    """The solver and a training step on GPUs."""
    h100, h200 = ROOT / "docs/gpu.json", ROOT / "docs/gpu_h200.json"
    blocks = {f"gpu-{path.stem}": markdown(*gpu_tables.solvers(path)) for path in (h100, h200)}
    return {**blocks, "gpu-steps": markdown(*gpu_tables.steps([h100, h200]))}, {}


if __name__ == "__main__":
    main()

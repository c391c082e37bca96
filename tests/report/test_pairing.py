"""Only trainings with the same seed are pairs, wherever their seeds are told."""

import json
from pathlib import Path

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.report.cells import seed_of
from espnet_gmot.report.cli import main
from espnet_gmot.report.differences import differences
from espnet_gmot.report.pairing import pair
from espnet_gmot.report.results import Result, write_results
from espnet_gmot.report.utterances import Counted, read_utterances
from tests.report.test_report import experiment

NOTE = "g has seeds 1 2 3, ctc seeds 0 1 2: taken for independent; in pairs seeds 1 2 alone."


def counted(system: str, *seeds: int | None) -> list[Counted]:
    """Trainings of a system; the seed says how many errors the first utterance has."""
    lengths = {f"s{index:02}-u": 50 for index in range(12)}
    errors = {key: index for index, key in enumerate(lengths)}
    return [Counted(system, "dev", lengths, {**errors, "s00-u": seed or 0}, seed) for seed in seeds]


def comparison(folder: Path, **seeds: tuple[int, ...]) -> Path:
    """A comparison's folder; the seed says how many sentences are wrong."""
    for system, each in seeds.items():
        for seed in each:
            exp = experiment(folder / f"exp/asr_{system}_seed{seed}", 10 * seed + 2 * (system == "ctc"))
            (exp / "comparison.json").write_text(json.dumps({"system": system, "seed": seed}))
    return folder


def row(out: str, system: str) -> list[str]:
    """The cells of a system in the table of differences."""
    table = next(part for part in out.split("\n\n") if part.startswith("Differences"))
    return next(line.split() for line in table.splitlines() if line.startswith(f"{system} "))


def test_the_same_seeds_are_pairs_in_any_order() -> None:
    found = pair(counted("g", 2, 0, 1), counted("ctc", 0, 1, 2))
    assert found.whole and not found.note
    assert [(ours.seed, theirs.seed) for ours, theirs in found.pairs] == [(2, 2), (0, 0), (1, 1)]
    (apart,) = differences({"ctc": counted("ctc", 0, 1, 2), "g": counted("g", 2, 0, 1)}, "ctc", 1000)
    assert apart.each == [0, 0, 0] and apart.low == apart.high == 0


def test_other_seeds_are_no_pairs() -> None:
    found = pair(counted("g", 1, 2, 3), counted("ctc", 0, 1, 2))
    assert (found.whole, found.note) == (False, NOTE)
    assert [(ours.seed, theirs.seed) for ours, theirs in found.pairs] == [(1, 1), (2, 2)]
    (apart,) = differences({"ctc": counted("ctc", 0, 1, 2), "g": counted("g", 1, 2, 3)}, "ctc", 1000)
    assert apart.each == [0, 0] and apart.note == NOTE and apart.p_value == apart.unpaired


def test_seeds_that_nobody_knows_are_pairs_in_the_order_given() -> None:
    ours, theirs = counted("g", None, None), counted("ctc", 0, 1)
    assert pair(ours, theirs).whole and [*pair(ours, theirs).pairs] == [*zip(ours, theirs, strict=True)]
    again = counted("g", 0, 0)  # the same seed twice tells as little
    assert [*pair(again, theirs).pairs] == [*zip(again, theirs, strict=True)]
    fewer = pair(ours[:1], theirs)
    assert (fewer.whole, list(fewer.pairs)) == (False, []) and "g has 1 experiments, ctc 2: taken for" in fewer.note


def test_two_trainings_are_compared_and_told_of() -> None:
    found = pair(counted("g", 1), counted("ctc", 0))
    assert found.whole and len(found.pairs) == 1
    assert found.note == "g has seed 1, ctc seed 0: they differ in their seeds too."


def test_a_comparison_of_other_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = comparison(tmp_path, ctc=(0, 1, 2), g=(1, 2, 3)), tmp_path / "u.csv"
    words = ["--baseline", "ctc", "--resamples", "1000"]
    main(["--comparison", str(folder), *words, "--write_utterances", str(file)])
    told = capsys.readouterr().out
    # from 10 and 20 errors to 12 and 22: two pairs
    assert NOTE in told.splitlines() and " ".join(row(told, "g")).count("segments") == 2
    assert row(told, "g")[5] == row(told, "g")[6]  # unpaired already
    head = file.read_text().splitlines()[0]
    assert head == "set,utterance,characters,ctc:seed0,ctc:seed1,ctc:seed2,g:seed1,g:seed2,g:seed3"
    assert [each.seed for each in read_utterances(file)["g", "test"]] == [1, 2, 3]

    fixed = dict.fromkeys(("config", "teacher", "options", "phase", "date", "commit", "versions", "hardware"), "")
    fixed |= dict.fromkeys(("trials", "epochs", "steps", "hours", "cpu_hours", "max_rss_gb"), 0)
    fixed |= {"set": "test", "utterances": 36, "characters": 216, "substitutions": 0, "insertions": 0}
    results = [
        Result(
            system=name, seed=seed, errors=n, deletions=n, wrong=n, cer=n / 216, counted_by="", experiment="", **fixed
        )
        for name, seeds in (("ctc", (0, 1, 2)), ("g", (3, 1, 2)))  # as they stand in the file, seed 10 before seed 2
        for seed in seeds
        for n in [min(36, 10 * seed + 2 * (name == "ctc"))]
    ]
    write_results(tmp_path / "r.csv", results)
    again = ["--csv", str(tmp_path / "r.csv"), "--utterances", str(file), *words]
    main(again)
    repeated = capsys.readouterr().out
    assert NOTE in repeated.splitlines() and row(repeated, "g")[:7] == row(told, "g")[:7]
    # a file of before the seeds stood in it: columns in the order of the seeds
    older = head.replace("ctc:seed", "ctc:").replace("g:seed1,g:seed2,g:seed3", "g:0,g:1,g:2")
    file.write_text(file.read_text().replace(head, older))
    main(again)
    assert capsys.readouterr().out == repeated
    file.write_text(file.read_text().replace("g:0,g:1,g:2", "g:seed0,g:seed1,g:seed2"))
    with pytest.raises(UserError, match=r"u.csv: not the seeds 1 2 3 of g on test; there are 0 1 2"):
        main(again)


def test_a_seed_is_read_where_it_is_told(tmp_path: Path) -> None:
    assert seed_of(tmp_path) is None
    (tmp_path / "config.yaml").write_text("token_list:\n- a\nseed: 7\nmodel_conf:\n  seed: 9\n")
    assert seed_of(tmp_path) == 7
    (tmp_path / "comparison.json").write_text('{"seed": 3}')
    assert seed_of(tmp_path) == 3


@pytest.mark.parametrize("text", ['{"system": "ctc", "se', "[]"])
def test_a_damaged_note_is_named(tmp_path: Path, text: str) -> None:
    folder = comparison(tmp_path, ctc=(0,))
    (folder / "exp/asr_ctc_seed0/comparison.json").write_text(text)
    with pytest.raises(UserError, match=r"asr_ctc_seed0/comparison.json: .*JSON.*restore it"):
        main(["--comparison", str(folder)])

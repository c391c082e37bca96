"""`report` over seeds: means, tests, kinds of errors, and everything that can't be compared, named in one line."""

import json
from pathlib import Path

import pytest
import yaml

from espnet_gmot.errors import UserError
from espnet_gmot.report import homophones
from espnet_gmot.report.breakdown import break_down, characters
from espnet_gmot.report.cells import LATE
from espnet_gmot.report.cer import edits
from espnet_gmot.report.cli import main
from espnet_gmot.report.results import Result, read_results, write_results
from espnet_gmot.report.training_log import read_training_log
from espnet_gmot.report.utterances import read_utterances

REFERENCE = {f"S{index % 12}-u{index:02d}": "今天天气很好" for index in range(36)}
CLOSING = "[vm] 2026-01-01 00:00:00,000 (trainer:1) INFO: "
RESULT = "[train] loss_ctc=72.5, time=1 minute and 2.5 seconds, total_count=71, [valid] cer_ctc=1.000, total_count=15"
LINES = f"""# python3 -m espnet_gmot -m espnet2.bin.asr_train
[vm] 2026-11-26 00:51:54,000 (trainer:336) INFO: 1/3epoch started
[vm] 2026-11-26 00:51:58,000 (trainer:770) INFO: 1epoch:train:1-2batch: loss_ctc=80.1
[vm] 2026-11-26 00:52:04,000 (trainer:394) INFO: 1epoch results: {RESULT}
[vm] 2026-11-26 00:52:05,000 (trainer:324) INFO: 2/3epoch started. Estimated time to finish: 20 seconds
"""


def experiment(exp: Path, wrong: int, name: str = "test", references: dict[str, str] = REFERENCE) -> Path:
    """A scored experiment whose first ``wrong`` utterances lack a character."""
    folder = exp / "decode" / name / "score_cer"
    folder.mkdir(parents=True)
    hypotheses = {key: text[index < wrong :] for index, (key, text) in enumerate(references.items())}
    for file, texts in (("ref.trn", references), ("hyp.trn", hypotheses)):
        (folder / file).write_text("".join(f"{' '.join(text)}\t({key})\n" for key, text in texts.items()))
    (exp / "config.yaml").write_text(yaml.safe_dump({"token_list": ["<blank>", *"今天很好"]}, allow_unicode=True))
    return exp


def words(folder: Path, *more: str, ctc: tuple[int, ...] = (9, 12), gmot: tuple[int, ...] = (1, 2)) -> list[str]:
    """A command line over experiments of two systems."""
    found = ["--exp"]
    for system, seeds in (("ctc", ctc), ("gmot", gmot)):
        found += [f"{system}={experiment(folder / f'{system}{i}', wrong)}" for i, wrong in enumerate(seeds)]
    return [*found, *more]


def test_means_tests_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(words(tmp_path, "--baseline", "ctc", "--resamples", "1000"))
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    # 9 and 12 of 216 characters; 1 degree of freedom: half a difference of 1.3889 times 12.706
    assert ["ctc", "test", "2", "4.86", "-3.96", "13.68"] in rows
    assert ["gmot", "test", "2", "0.69", "-2.25", "3.64"] in rows
    (difference,) = [row for row in rows if row[:3] == ["gmot", "test", "-4.17"]]
    low, high, p_value, unpaired = map(float, difference[3:7])
    # seed by seed -3.70 and -4.63: 12.706 times half their difference, and a little for the sentences
    assert -4.17 - 6.2 < low < -4.17 - 5.88 and -4.17 + 5.88 < high < -4.17 + 6.2 and 0.06 < p_value < 0.09
    # unpaired: two samples with standard errors 0.694 and 0.231, 1 degree of freedom each
    assert p_value < unpaired < 0.2
    # 8 of 9 segments are worse by one error, the last alike: z = 8; 10 of 12: z = 7.4
    assert difference[7:] == ["<0.001", "(9", "segments),", "<0.001", "(12", "segments)"]
    assert out.splitlines()[-2:] == ["CER ctc test 0.0486", "CER gmot test 0.0069"]


def test_standard_errors_of_single_systems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--exp", f"a={experiment(tmp_path / 'a', 9)}", "--blocks", "utterance"])
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("a ") and "." in line][
        1:
    ]
    # 9 of 36 utterances with one of 6 characters wrong: sqrt(0.25 · 0.75 / 36) / 6
    assert float(row[3]) == pytest.approx(100 * (0.25 * 0.75 / 36) ** 0.5 / 6, abs=0.03)


def test_where_errors_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(words(tmp_path, "--errors", ctc=(6,), gmot=(0,)))
    out = capsys.readouterr().out
    # the first character is lacking in 6 of 36; 气 is not in the token list
    assert ["ctc", "test", "0", "6", "0", "0", "(–)", "0", "(–)", "0/36", "(0.0", "%)", "6/180", "(3.3", "%)"] in [
        line.split() for line in out.splitlines()
    ]
    (row,) = [line.split() for line in out.splitlines() if line.startswith("ctc") and "16.7" in line]
    assert row[2:] == ["16.7", "%", "0.0", "%", "0.0", "%", "0.0", "%", "–", "–"]


def test_breakdown_by_hand() -> None:
    pytest.importorskip("pypinyin")
    # 他→她 sounds the same, 妈→马 but for its tone, 行→高 not at all; 很 comes in before the last, 天 is lost
    found = break_down([edits("他妈行今天好", "她马高今很好")], set("他妈今好"))
    assert found.kinds == {"substitution": 4, "correct": 2}
    assert found.sounds == {homophones.TONED: 1, homophones.TONELESS: 1, homophones.OTHER: 2}
    assert (found.unseen, found.seen) == ([2, 2], [4, 2])
    assert found.places == [[1, 1], [1, 1], [2, 1], [2, 1], [0, 0], [0, 0]]
    inserted = break_down([edits("今天", "今天好")], set("今天"))
    assert inserted.kinds["insertion"] == 1 and inserted.places[:2] == [[1, 0], [1, 1]]


def test_what_training_knew_is_told_in_characters() -> None:
    """Errors are counted in characters, whatever the recogniser's tokens are."""
    assert characters(["<blank>", "他", "<space>", "A"]) == {"<blank>", "他", "<space>", "A"}
    assert {"a", "t", "c", "<space>"} <= characters(["<blank>", "▁cat", "at", "s"]) and "▁" not in characters(["▁a"])
    assert "<space>" in characters(["cat", "dog"]) and "<space>" not in characters(["<unk>", "他"])


def test_a_set_that_is_named_twice_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(words(tmp_path, "--sets", "test test", ctc=(9,), gmot=(1,)))
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.split()[:2] == ["gmot", "test"]]) == 1


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("他她", homophones.TONED),
        ("妈马", homophones.TONELESS),
        ("行航", homophones.TONED),  # by one of its readings, háng
        ("吗妈", homophones.TONELESS),  # a neutral tone is a tone
        ("天好", homophones.OTHER),
        ("aa", homophones.OTHER),
    ],
)
def test_homophones(pair: str, expected: str) -> None:
    pytest.importorskip("pypinyin")
    assert homophones.similarity(*pair) == expected


def unequal(folder: Path, kind: str) -> tuple[list[str], str]:
    """A command line with something wrong, and what the error must say."""
    if kind == "missing seed":
        return words(
            folder, gmot=(1,)
        ), r"gmot has 1 of 2 seeds on test \(ctc has all\): train the missing cells, or --part"
    line = words(folder)
    exp = folder / "gmot1"
    trn = exp / "decode/test/score_cer/ref.trn"
    if kind == "unfinished":
        (exp / "train.log").write_text(f"{CLOSING}1/12epoch started\n{CLOSING}1epoch results: [train] loss=1\n")
        return line, "gmot1: trained 1 of 12 epochs; train on"
    if kind == "tokens":
        (exp / "config.yaml").write_text("token_list: [<blank>, 今]\n")
        return line, r"gmot1: its token list \(2\) isn't that of .*ctc0 \(5\)"
    if kind == "no token list":
        (exp / "config.yaml").write_text("{}\n")
        return line, "gmot1/config.yaml: no token_list in it"
    if kind == "lost utterance":
        trn.write_text("".join(trn.read_text().splitlines(keepends=True)[1:]))
        return line, r"gmot1/.*/ref.trn: lacks utterance S0-u00, which .*ctc0.* has: other test sets"
    if kind == "other text":
        trn.write_text(trn.read_text().replace("今", "明", 1))
        return line, "gmot1/.*: utterance S0-u00 isn't what it is in .*ctc0"
    if kind == "no hypothesis":
        trn.with_name("hyp.trn").write_text("".join(trn.read_text().splitlines(keepends=True)[1:]))
        return line, r"hyp.trn: lacks 1 sentences \(S0-u00\)"
    if kind == "twice":
        return [*line, line[1]], "ctc0: given twice"
    if kind == "no baseline":
        return [*line, "--baseline", "x"], "--baseline x: not scored on test; there are ctc, gmot"
    if kind == "few resamples":
        return [*line, "--resamples", "9"], "--resamples 9: must be at least 100"
    few = {key: text for key, text in REFERENCE.items() if key.startswith("S1-")}
    return ["--exp", f"a={experiment(folder / 'few', 1, references=few)}", "--blocks", "speaker"], (
        "--blocks speaker: set test has 1 of them, too few to resample; --blocks utterance"
    )


KINDS = [
    "missing seed",
    "unfinished",
    "tokens",
    "no token list",
    "lost utterance",
    "other text",
    "no hypothesis",
    "twice",
]


@pytest.mark.parametrize("kind", [*KINDS, "no baseline", "few resamples", "few speakers"])
def test_what_cannot_be_compared_is_named(tmp_path: Path, kind: str) -> None:
    line, message = unequal(tmp_path, kind)
    with pytest.raises(UserError, match=message) as caught:
        main(line)
    assert "\n" not in str(caught.value)


def test_partial_reports_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(words(tmp_path, "--partial", gmot=(1,)))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gmot", "test", "1", "0.46", "–", "–"] in rows


def comparison(folder: Path) -> Path:
    """A comparison's folder with two systems of two seeds."""
    for system, seed, wrong in (("gmot", 1, 2), ("gmot", 0, 1), ("ctc", 0, 9), ("ctc", 1, 12)):
        exp = experiment(folder / f"exp/asr_{system}_seed{seed}", wrong)
        (exp / "comparison.json").write_text(json.dumps({"system": system, "seed": seed}))
    return folder


def test_a_comparisons_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = comparison(tmp_path / "w")
    main(["--comparison", str(folder)])
    assert capsys.readouterr().out.splitlines()[-2:] == ["CER ctc test 0.0486", "CER gmot test 0.0069"]
    main(["--comparison", str(folder), "--systems", "gmot"])
    assert "ctc" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--systems: no tot in .*; there are ctc, gmot"):
        main(["--comparison", str(folder), "--systems", "tot"])
    with pytest.raises(UserError, match=r"--comparison .*: no exp/"):
        main(["--comparison", str(tmp_path)])


def test_an_unfinished_cell_is_named_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = comparison(tmp_path)
    begun = folder / "exp/asr_gmot_seed2/comparison.json"
    begun.parent.mkdir()
    begun.write_text(json.dumps({"system": "gmot", "seed": 2, "sets": {}}))
    with pytest.raises(UserError, match="asr_gmot_seed2: is not scored yet; finish the comparison, or --partial"):
        main(["--comparison", str(folder)])
    main(["--comparison", str(folder), "--partial"])
    assert "CER gmot test 0.0069" in capsys.readouterr().out
    begun.with_name("comparison.json").write_text(json.dumps({"system": "tot", "seed": 2, "sets": {}}))
    with pytest.raises(UserError, match="none of its cells is scored yet"):
        main(["--comparison", str(folder), "--systems", "tot", "--partial"])


def write_csv(path: Path, **changes: str) -> Path:
    """Results of two systems and two seeds."""
    fixed = {
        "set": "test", "utterances": 36, "characters": 216, "substitutions": 0, "insertions": 0, "counted_by": "sclite",
        "config": "c.yaml", "teacher": "", "options": "", "trials": 1, "epochs": 2, "steps": 10, "hours": 0.5,
        "cpu_hours": 0.4, "max_rss_gb": 1.0, "phase": "final", "date": "d", "commit": "c", "versions": "a, b",
        "hardware": "h", "experiment": "e",
    }  # fmt: skip
    results = [
        Result(system=s, seed=i, errors=n, deletions=n, wrong=n, cer=n / 216, **fixed)
        for s, i, n in (("ctc", 0, 9), ("ctc", 1, 12), ("gmot", 0, 1), ("gmot", 1, 2))
    ]
    write_results(path, results)
    assert [result.counts for result in read_results(path)] == [result.counts for result in results]
    text = path.read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path


def test_a_csv_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--csv", str(write_csv(tmp_path / "r.csv"))])
    out = capsys.readouterr().out
    assert ["ctc", "test", "2", "4.86", "-3.96", "13.68"] in [line.split() for line in out.splitlines()]
    assert out.splitlines()[-2:] == ["CER ctc test 0.0486", "CER gmot test 0.0069"]
    with pytest.raises(UserError, match=r"--baseline: --csv has sums alone: give --exp .* or --utterances"):
        main(["--csv", str(tmp_path / "r.csv"), "--baseline", "ctc"])
    with pytest.raises(UserError, match="no ctc on dev; score it"):
        main(["--csv", str(tmp_path / "r.csv"), "--sets", "dev"])


def test_what_came_after_the_test_set_was_known_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = comparison(tmp_path / "w")
    main(["--comparison", str(folder), "--baseline", "ctc", "--resamples", "200"])
    assert "*" not in capsys.readouterr().out
    note = {"system": "gmot", "seed": 1, "sets": {"test": {"phase": "after"}}}
    (folder / "exp/asr_gmot_seed1/comparison.json").write_text(json.dumps(note))
    utterances = tmp_path / "u.csv"
    main(
        ["--comparison", str(folder), "--baseline", "ctc", "--resamples", "200", "--write_utterances", str(utterances)]
    )
    told = capsys.readouterr().out
    lines = write_csv(tmp_path / "r.csv").read_text().splitlines()
    (tmp_path / "r.csv").write_text("\n".join([*lines[:-1], lines[-1].replace(",final,", ",after,")]) + "\n")
    page = tmp_path / "out.html"
    again = [
        "--csv",
        str(tmp_path / "r.csv"),
        "--utterances",
        str(utterances),
        "--baseline",
        "ctc",
        "--html",
        str(page),
    ]
    main([*again, "--resamples", "200"])
    for out, names in ((told, ["gmot", *["gmot*"] * 4]), (capsys.readouterr().out, ["gmot*"] * 3)):
        shown = [line.split()[0] for line in out.splitlines() if line.startswith("gmot")]
        assert shown == names and LATE in out.splitlines() and "CER gmot test 0.0069" in out
    text = page.read_text(encoding="utf-8")
    assert ">gmot*<" in text and ">ctc<" in text and LATE in text


def test_resampling_can_be_repeated_without_the_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From errors by utterance: the same intervals and p-values as from the experiments."""
    file = tmp_path / "utterances.csv"
    main(words(tmp_path, "--baseline", "ctc", "--resamples", "1000", "--write_utterances", str(file)))
    told = capsys.readouterr().out
    assert file.read_text().splitlines()[0] == "set,utterance,characters,ctc:0,ctc:1,gmot:0,gmot:1"
    assert "今" not in file.read_text()
    found = read_utterances(file)
    assert [sum(each.wrong.values()) for each in (*found["ctc", "test"], *found["gmot", "test"])] == [9, 12, 1, 2]
    numbered = tmp_path / "numbered.csv"
    main(words(tmp_path / "again", "--write_utterances", str(numbered), "--anonymous"))
    speakers = dict.fromkeys(line.split(",")[1].split("-")[0] for line in file.read_text().splitlines()[1:])
    names = [line.split(",")[1] for line in numbered.read_text().splitlines()[1:]]
    assert [*dict.fromkeys(name.split("-")[0] for name in names)] == [f"s{n + 1:04}" for n in range(len(speakers))]
    assert not any(speaker in numbered.read_text() for speaker in speakers)
    capsys.readouterr()
    for errors in (file, numbered):
        again = ["--csv", str(write_csv(tmp_path / "r.csv")), "--utterances", str(errors), "--baseline", "ctc"]
        main([*again, "--resamples", "1000"])
        repeated = capsys.readouterr().out
        for title in ("Standard errors", "Differences"):
            one, other = (
                next(part for part in text.split("\n\n") if part.startswith(title)) for text in (told, repeated)
            )
            columns = [[line.split()[:6] for line in part.splitlines()[3:]] for part in (one, other)]
            assert columns[0] == columns[1] and len(columns[0]) > 0
    with pytest.raises(UserError, match="--anonymous: goes with --write_utterances"):
        main([*again, "--anonymous"])


def test_errors_by_utterance_of_other_cells_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "u.csv"
    main(words(tmp_path, "--write_utterances", str(file), gmot=(1,), ctc=(9,)))
    again = ["--csv", str(write_csv(tmp_path / "r.csv")), "--utterances", str(file), "--baseline", "ctc"]
    with pytest.raises(UserError, match=r"u.csv: not the 2 seeds of ctc on test"):
        main(again)
    file.write_text(file.read_text().replace(",1,", ",one,", 1))
    with pytest.raises(UserError, match=r"u.csv:2: ctc:0: 'one' is no count"):
        read_utterances(file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gmot,1,test,36,216", "gmot,0,test,36,216", "r.csv:5: gmot, seed 0, test stands there twice"),
        ("gmot,1,", "tot,1,", "gmot has 1 of 2 seeds on test"),
        (
            "gmot,1,test,36,216",
            "gmot,1,test,36,215",
            "test has 216 characters for .*, 215 for gmot seed 1",
        ),
        ("gmot,1,test,36,216,2,", "gmot,1,test,36,216,3,", "r.csv:5: .*: 3 errors of 216 characters, but sub .* is 2"),
        ("gmot,1,test,36", "gmot,1,test,many", "r.csv:5: utterances: 'many' is no number"),
        ("system,seed", "name,seed", "r.csv: no column 'system'"),
    ],
)
def test_a_broken_csv_file_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["--csv", str(write_csv(tmp_path / "r.csv", change=(old, new)))])


def test_an_absent_csv_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"r.csv: no such file; a comparison writes it"):
        main(["--csv", str(tmp_path / "r.csv")])


def test_the_log_of_a_resumed_training(tmp_path: Path) -> None:
    """Each epoch by its last run; the time lost by interruptions doesn't count."""
    (tmp_path / "train.1.log").write_text(LINES)
    (tmp_path / "train.log").write_text(
        f"[vm] 2026-11-26 02:00:00,000 (trainer:324) INFO: 2/3epoch started. Estimated time to finish: 1 minute\n"
        f"[vm] 2026-11-26 02:00:20,500 (trainer:394) INFO: 2epoch results: {RESULT.replace('=71', '=142')}\n"
    )
    log = read_training_log(tmp_path)
    assert [(epoch.number, epoch.seconds, epoch.steps) for epoch in log.epochs] == [(1, 10.0, 71), (2, 20.5, 142)]
    assert (log.max_epoch, log.seconds, log.finished) == (3, 30.5, False)
    assert log.epochs[0].train["loss_ctc"] == 72.5 and log.epochs[0].valid == {"cer_ctc": 1.0, "total_count": 15.0}
    with (tmp_path / "train.log").open("a") as lines:
        lines.write(
            "[vm] 2026-11-26 02:01:00,000 (reporter:412) INFO: [Early stopping] valid.loss has not been improved\n"
        )
    assert read_training_log(tmp_path).finished and read_training_log(tmp_path / "none").finished

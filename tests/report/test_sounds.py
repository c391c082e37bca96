"""Homophones against other substitutions: by hand, against closed forms, and without a difference."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from espnet_gmot.errors import UserError
from espnet_gmot.report.cer import Counts
from espnet_gmot.report.cli import main
from espnet_gmot.report.scored import Row
from espnet_gmot.report.sounds import read_soundings, soundings
from tests.report.test_report import experiment

pytest.importorskip("pypinyin")
SENTENCE = "他今" * 10  # 他 may be heard as 她, which sounds the same, 今 as 很


def row(folder: Path, system: str, wrong: np.ndarray) -> Row:
    """An experiment with these substitutions (utterance, kind), a speaker for each utterance."""
    references = {f"s{index:03d}-u": SENTENCE for index in range(len(wrong))}
    experiment(folder, 0, references=references)
    scored = folder / "decode" / "test" / "score_cer"
    lines = []
    for key, (homophones, others) in zip(references, wrong.tolist(), strict=True):
        heard = "".join(
            ("她" if number // 2 < homophones else "他")
            if number % 2 == 0
            else ("很" if number // 2 < others else "今")
            for number in range(20)
        )
        lines.append(f"{' '.join(heard)}\t({key})\n")
    (scored / "hyp.trn").write_text("".join(lines), encoding="utf-8")
    return Row(system, "test", Counts(), "", scored)


def test_changes_by_hand_and_the_interval_of_seeds_alone(tmp_path: Path) -> None:
    """Every sentence alike: only seeds vary, and the logarithm of the ratio has their paired t interval."""
    ctc = [row(tmp_path / f"ctc{seed}", "ctc", np.tile([4 + seed, 5], (12, 1))) for seed in range(3)]
    ours = [row(tmp_path / f"gmot{seed}", "gmot", np.tile([3 + seed, 4 + seed % 2], (12, 1))) for seed in range(3)]
    (found,) = soundings({("ctc", "test"): ctc, ("gmot", "test"): ours}, "ctc")
    assert (found.homophones, found.others) == pytest.approx((12 * 4, 12 * 13 / 3))
    assert (found.homophones_change, found.others_change) == pytest.approx((4 / 5 - 1, 13 / 15 - 1))
    assert found.ratio == pytest.approx((4 / 5) / (13 / 15))
    each = np.log([3 / 4, 4 / 5, 5 / 6]) - np.log([4 / 5, 5 / 5, 4 / 5])
    half = scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem(each)
    assert (found.low, found.high) == pytest.approx((found.ratio * np.exp(-half), found.ratio * np.exp(half)), rel=0.03)


def test_one_seed_has_the_interval_of_its_speakers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ctc, ours = rng.binomial(10, 0.4, (2, 200, 2))
    groups = {(name, "test"): [row(tmp_path / name, name, wrong)] for name, wrong in (("ctc", ctc), ("gmot", ours))}
    (found,) = soundings(groups, "ctc")
    # the delta method: relative residuals of four sums over the same speakers
    residual = sum(
        sign * counts[:, kind] / counts[:, kind].sum()
        for sign, counts, kind in ((1, ours, 0), (-1, ctc, 0), (-1, ours, 1), (1, ctc, 1))
    )
    error = np.sqrt(200 / 199) * np.sqrt((residual**2).sum())
    assert np.log(found.high / found.ratio) == pytest.approx(scipy.stats.t.ppf(0.975, 199) * error, rel=0.05)
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(np.log(found.ratio)) / error, 199), abs=0.03)


def test_the_bootstrap_draws_what_is_asked_for(tmp_path: Path) -> None:
    """Speakers of two sentences that are wrong together: by sentences the interval is too narrow."""
    rng = np.random.default_rng(1)
    groups = {}
    for name in ("ctc", "gmot"):
        wrong = rng.binomial(10, 0.4, (20, 2)).repeat(2, 0)
        (folder := tmp_path / name).mkdir()
        one = row(folder, name, wrong)
        who = {key: f"s{index // 2}" for index, key in enumerate(sorted(one.references))}
        object.__setattr__(one, "speakers", who)
        groups[name, "test"] = [one]
    speakers, sentences, usual = (
        soundings(groups, "ctc", blocks=blocks)[0] for blocks in ("speaker", "utterance", None)
    )
    assert usual == speakers and speakers.ratio == sentences.ratio
    wide, narrow = (np.log(each.high / each.ratio) for each in (speakers, sentences))
    assert wide == pytest.approx(np.sqrt(2) * narrow, rel=0.1)


def test_without_a_kind_there_is_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, exps = ["--baseline", "ctc", "--errors", "--resamples", "100"], []
    for name, wrong in (("ctc", [[2, 3]] * 12), ("gmot", [[1, 3]] * 12), ("none", [[0, 3]] * 12)):
        row(tmp_path / name, name, np.array(wrong))
        exps.append(f"{name}={tmp_path / name}")
    file = tmp_path / "sounds.csv"
    main([*options, "--write_sounds", str(file), "--exp", *exps])
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gmot", "test", "12", "36", "-50.0", "+0.0", "0.500", "0.500", "0.500", "<0.0001"] in out
    (kept,) = read_soundings(file)  # none of "none", which has no homophones
    assert (kept.system, kept.ratio) == ("gmot", pytest.approx(0.5))
    with pytest.raises(UserError, match="--write_sounds: goes with --errors --baseline"):
        main([*options[:2], "--write_sounds", str(file), "--exp", *exps])
    main([*options, "--exp", exps[0], exps[2]])
    assert "against ctc's: too few to compare" in capsys.readouterr().out

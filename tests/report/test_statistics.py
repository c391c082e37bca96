"""Statistics against closed forms, scipy and sclite's own programs."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from espnet_gmot.report.cer import Edit, edits
from espnet_gmot.report.statistics import matched_pairs, mean_interval, uncertain


def test_interval_is_scipys() -> None:
    values = [27.5, 28.9, 29.1, 26.4]
    mean, half = mean_interval(values)
    low, high = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert mean_interval([3.0])[0] == 3.0 and np.isnan(mean_interval([3.0])[1]) and np.isnan(mean_interval([])[0])


def test_the_error_is_that_of_a_mean() -> None:
    """Utterances of equal length, each a block: the standard error of a rate is that of a mean, over all tokens."""
    rng = np.random.default_rng(1)
    errors = rng.poisson(3.0, (1, 200))
    found = uncertain(errors, np.full(200, 10), range(200))
    assert found.value == errors.sum() / 2000
    assert found.error == pytest.approx(errors.std() / np.sqrt(200) / 10, rel=0.03)
    reference = scipy.stats.bootstrap((errors[0] / 10,), np.mean, method="percentile", rng=2).confidence_interval
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=0.02)


def test_whole_speakers_are_drawn() -> None:
    """Utterances that repeat their speaker's error tell no more than one of them would: the error is the speakers'."""
    per_speaker = np.random.default_rng(2).poisson(3.0, 50)
    repeated, speakers = np.repeat(per_speaker, 8)[None], np.repeat(np.arange(50), 8)
    blocks = uncertain(repeated, np.full(400, 10), list(speakers))
    alone = uncertain(per_speaker[None], np.full(50, 10), range(50))
    assert (blocks.error, blocks.low) == pytest.approx((alone.error, alone.low))
    assert uncertain(repeated, np.full(400, 10), range(400)).error < 0.5 * blocks.error


def test_the_difference_is_paired() -> None:
    """Systems that fail on the same sentences differ more surely than their own errors let expect."""
    rng = np.random.default_rng(3)
    hard = rng.poisson(4.0, (1, 300)) * 3
    better, tokens = hard - (rng.random((1, 300)) < 0.2), np.full(300, 20)
    found = uncertain(hard, tokens, range(300), better)
    gain = (hard - better)[0]
    assert found.value == pytest.approx(gain.mean() / 20)
    assert found.error == pytest.approx(gain.std() / np.sqrt(300) / 20, rel=0.03)
    assert found.low > 0 and found.p_value == pytest.approx(2 / 10_001)
    assert found.error < 0.1 * uncertain(hard, tokens, range(300)).error
    assert uncertain(hard, tokens, range(300), hard).p_value == 1.0


def test_seeds_add_their_variance() -> None:
    """Every seed errs alike everywhere: only the seeds vary, and the interval is that of their mean."""
    rates = np.array([3.0, 4.0, 4.5, 5.0])
    found = uncertain(np.tile(rates[:, None], (1, 30)), np.full(30, 10), range(30))
    low, high = scipy.stats.t.interval(0.95, 3, loc=0.4125, scale=scipy.stats.sem(rates) / 10)
    assert (found.value, found.low, found.high) == pytest.approx((0.4125, low, high), rel=0.01)
    assert found.error == pytest.approx(rates.std(ddof=1) / 2 / 10)
    assert uncertain(np.array([[1] * 30, [9] * 30]), np.full(30, 10), range(30)).low == 0.0  # no rate is negative


def test_seeds_are_paired_where_they_are_as_many() -> None:
    """A seed that is hard for both says nothing of their difference; systems with other seeds are two samples."""
    rates, gains = np.array([2.0, 4.0, 6.0, 12.0]), np.array([0.5, 0.9, 0.2, 1.4])
    errors, tokens = np.tile(rates[:, None], (1, 30)), np.full(30, 10)
    found = uncertain(errors, tokens, range(30), errors - gains[:, None])
    test = scipy.stats.ttest_rel(rates, rates - gains)
    assert (found.value, found.p_value) == pytest.approx((gains.mean() / 10, test.pvalue), rel=0.03)
    # the same gains, were the seeds two samples: lost in what seeds differ by (Welch's test is a little bolder)
    welch = scipy.stats.ttest_ind(rates, rates - gains, equal_var=False).pvalue
    assert welch < found.unpaired < 1.1 * welch and found.unpaired > 10 * found.p_value
    others = np.array([1.0, 3.0, 3.5, 4.0, 8.0])
    apart = uncertain(errors, tokens, range(30), np.tile(others[:, None], (1, 30)))
    variances = [rates.var(ddof=1) / 400, others.var(ddof=1) / 500]
    assert apart.error == pytest.approx(np.sqrt(sum(variances)))
    assert scipy.stats.ttest_ind(rates, others, equal_var=False).pvalue < apart.p_value < 0.5
    assert apart.unpaired == apart.p_value
    single = uncertain(errors, tokens, range(30), errors[:1])  # as uncertain as one of the others
    assert single.error == pytest.approx(rates.std(ddof=1) / 10 * np.sqrt(1 / 4 + 1))


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("own", [9, 50])
def test_few_seeds_are_not_trusted_too_much(seeds: int, own: int) -> None:
    """Without a difference, at most one in twenty is called one, and one in a hundred at 0.01.

    Seeds have an effect common to both systems and one of their own (the smaller, the larger ``own``), and so have
    speakers.
    """
    rng, found = np.random.default_rng(6), []
    for _ in range(400):
        common, apart = rng.gamma(9, 1 / 9, (seeds, 1)), rng.gamma(own, 1 / own, (2, seeds, 1))
        speakers = np.repeat(rng.gamma(4, 1 / 4, 20) * rng.gamma(40, 1 / 40, (2, 1, 20)), 8, axis=2)
        ours, theirs = rng.poisson(3 * common * apart * speakers)
        found.append(uncertain(ours, np.full(160, 20), np.repeat(np.arange(20), 8), theirs, resamples=400).p_value)
    assert np.mean(np.array(found) < 0.05) < 0.075 and np.mean(np.array(found) < 0.01) < 0.025
    assert np.mean(np.array(found) < 0.5) > 0.25


@pytest.mark.parametrize(
    "wrong",
    [{"other": np.ones((1, 3))}, {"other": np.ones(30)}, {"errors": np.full((2, 30), np.nan)}, {"blocks": [1] * 30}],
)
def test_what_does_not_fit_is_no_result(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"fit|finite|fewer than two"):
        uncertain(**{"errors": np.ones((2, 30)), "tokens": np.full(30, 10), "blocks": range(30)} | wrong)


def test_p_values_are_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(4)
    found = [
        uncertain(rng.poisson(3, (1, 60)), np.full(60, 10), range(60), rng.poisson(3, (1, 60)), resamples=500).p_value
        for _ in range(300)
    ]
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.10


def spelt(kinds: str) -> list[Edit]:
    """An alignment from a word of C, S, D and I."""
    names = {"C": "correct", "S": "substitution", "D": "deletion", "I": "insertion"}
    found, place = [], 0
    for letter in kinds:
        found.append(Edit(names[letter], place, "x", "y"))
        place += letter != "I"
    return found


def test_segments_by_hand() -> None:
    # two right tokens end a segment, one doesn't; insertions stand between tokens
    first, second = spelt("SCSCCDCCIC"), spelt("CCCCCSCCC")
    found = matched_pairs([(first, second)])
    differences = [2, 0, 1]  # S C S | D against S | I
    assert found.segments == 3 and found.mean == pytest.approx(1.0)
    statistic = scipy.stats.ttest_1samp(differences, 0).statistic
    assert found.z == pytest.approx(statistic) and found.p_value == pytest.approx(2 * scipy.stats.norm.sf(statistic))
    assert matched_pairs([(spelt("CCC"), spelt("CCC"))]).p_value == 1.0
    # segments that all differ alike have no deviation; that all have one sign is a chance of two in 2^n
    assert matched_pairs([(spelt("SCC"), spelt("CCC"))] * 5).p_value == pytest.approx(2 / 2**5)


def noisy(rng: np.random.Generator, sentence: list[str], rate: float) -> list[str]:
    """A hypothesis with substitutions, deletions and insertions."""
    said = []
    for token in sentence:
        kind = rng.random() / rate
        if kind < 1:
            said.append(f"{rng.integers(15)}")
        elif kind > 1.3:
            said += [token] + [f"{rng.integers(15)}"] * (kind < 1.5)
    return said


@pytest.mark.parametrize(("rates", "verdict"), [((0.12, 0.20), "Yes"), ((0.15, 0.15), "No")])
def test_matched_pairs_are_those_of_sc_stats(tmp_path: Path, rates: tuple[float, float], verdict: str) -> None:
    """On sclite's own alignments the same segments, mean, deviation and Z; on ours the same verdict."""
    programs = [shutil.which(name, path="/usr/lib/sctk/bin:/usr/bin") for name in ("sclite", "sc_stats")]
    if not all(programs):
        pytest.skip("sclite or sc_stats is not installed (Debian's sctk)")
    rng = np.random.default_rng(5)
    refs = {f"S{i % 7}-u{i:03d}": [f"{rng.integers(15)}" for _ in range(rng.integers(4, 21))] for i in range(80)}
    texts = [refs, *({key: noisy(rng, text, rate) for key, text in refs.items()} for rate in rates)]
    for name, sentences in zip(("ref", "a", "b"), texts, strict=True):
        lines = "".join(f"{' '.join(text)}\t({key})\n" for key, text in sentences.items())
        (tmp_path / f"{name}.trn").write_text(lines)
    scored = ""
    for name in ("a", "b"):
        command = [
            programs[0],
            "-r",
            "ref.trn",
            "trn",
            "-h",
            f"{name}.trn",
            "trn",
            name,
            "-i",
            "rm",
            "-o",
            "sgml",
            "stdout",
        ]
        scored += subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    command = [programs[1], "-p", "-t", "mapsswe", "-v", "-n", "both"]
    subprocess.run(command, cwd=tmp_path, input=scored, capture_output=True, text=True, check=True)
    told = (tmp_path / "both.stats.mapsswe").read_text(errors="replace")  # it prints raw bytes, too
    numbers = re.search(
        r"# segs: (\d+)\).*mean: ([-\d.]+)\) \(std dev: ([\d.]+)\) \(Z Stat: ([-\d.]+)\) \(Stat Diff: (\w+)", told
    )
    theirs = [aligned_by_sclite(part) for part in scored.split("</SYSTEM>")[:2]]
    found = matched_pairs([(theirs[0][key], theirs[1][key]) for key in theirs[0]])
    assert len(theirs[0]) == 80 and f"{found.segments}" == numbers[1]
    assert [f"{value:.3f}" for value in (found.mean, found.deviation, found.z)] == list(numbers.groups()[1:4])
    ours = matched_pairs([(edits(refs[key], texts[1][key]), edits(refs[key], texts[2][key])) for key in refs])
    assert numbers[5] == verdict == ("Yes" if ours.p_value < 0.05 else "No") and ours.z == pytest.approx(
        found.z, abs=0.4
    )


def aligned_by_sclite(sgml: str) -> dict[str, list[Edit]]:
    """Alignments of sclite's SGML."""
    found = {}
    for key, body in re.findall(r'<PATH id="\((\S+)\)"[^>]*>\n(.*?)\n</PATH>', sgml, re.S):
        found[key] = spelt("".join(word[0] for word in body.split(":")))
    return found

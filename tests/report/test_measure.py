"""Errors of alignments against true times: plans and spans of known error, standard errors against resampling."""

from pathlib import Path

import numpy as np
import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.report.align import Span
from espnet_gmot.report.measure import plan_errors, read_scores, score, span_errors, stamped, table, write_scores
from espnet_gmot.version import commit


def spans_of(*times: tuple[float, float]) -> list[Span]:
    return [Span("字", start, end, (start + end) / 2, 1.0) for start, end in times]


def test_a_plan_that_is_late_by_a_frame() -> None:
    truth = spans_of((0.0, 0.4), (0.4, 0.8))
    plan = np.zeros((10, 2))
    plan[1:5, 0] = plan[5:9, 1] = 1  # frames of 0.1 s
    errors = plan_errors(plan, truth, seconds=1.0)
    np.testing.assert_allclose(errors[0], [0.1, 0.1])
    np.testing.assert_allclose(errors[1], [0.05, 0.15], atol=0.06)  # the path has to give the first frame to someone
    np.testing.assert_allclose(errors[2], [0.75, 0.75])


def test_an_even_plan_has_its_mass_everywhere() -> None:
    truth = spans_of((0.0, 0.25), (0.25, 1.0))
    errors = plan_errors(np.ones((8, 2)), truth, seconds=1.0)
    np.testing.assert_allclose(errors[0], [0.5 - 0.125, 0.5 - 0.625])
    np.testing.assert_allclose(errors[2], [0.25, 0.75])


def test_spans_of_ctc() -> None:
    errors = span_errors(spans_of((0.0, 0.2), (0.5, 0.6)), spans_of((0.1, 0.3), (0.0, 0.4)))
    np.testing.assert_allclose(errors, [[-0.1, 0.35], [-0.1, 0.35], [0.5, 0.0]])


def test_scores_sum_up_over_tokens_and_utterances() -> None:
    random = np.random.default_rng(0)
    parts = [random.normal(0.02, 0.05, (3, size)) + random.normal(0, 0.03) for size in random.integers(3, 15, 200)]
    parts[0][0, 0] = np.nan  # a token without mass has no centre
    found = score("exp", "ave.pth", "plan", parts)
    every = np.concatenate([part[0] for part in parts])
    assert found.utterances == 200 and found.tokens == len(every)
    assert found.error_ms == pytest.approx(1000 * np.nanmean(np.abs(every)))
    assert found.bias_ms == pytest.approx(1000 * np.nanmean(every))
    assert found.median_ms == pytest.approx(1000 * np.nanmedian(np.abs(every)))
    means = []
    for _ in range(1000):
        drawn = np.concatenate([np.abs(parts[index][0]) for index in random.integers(0, 200, 200)])
        means.append(1000 * np.nanmean(drawn))
    assert found.error_se_ms == pytest.approx(np.std(means), rel=0.1)


def test_scores_are_read_as_written(tmp_path: Path) -> None:
    scores = [score("a", "b.pth", name, [np.full((3, 2), 0.125)] * 2) for name in ("plan", "ctc")]
    write_scores(tmp_path / "x.csv", scores)
    assert read_scores(tmp_path / "x.csv") == scores
    older = [",".join(line.split(",")[:-2]) for line in (tmp_path / "x.csv").read_text().splitlines()]
    (tmp_path / "older.csv").write_text("\n".join(older))  # of a time that noted neither date nor commit
    assert read_scores(tmp_path / "older.csv") == scores
    write_scores(tmp_path / "x.csv", stamped(scores))
    assert [s.commit for s in read_scores(tmp_path / "x.csv")] == [commit()] * 2 and commit() != ""
    assert "125.0 ± 0.0" in table(scores) and "ctc" in table(scores)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"no column .experiment.; align --measure"):
        read_scores(tmp_path / "x.csv")


def test_what_a_row_leaves_out_is_told(tmp_path: Path) -> None:
    """A token without mass is in no mean; CTC lacks utterances of other units."""
    truth = spans_of((0.0, 0.4), (0.4, 0.8))
    whole, dropping = np.zeros((10, 2)), np.zeros((10, 2))
    whole[1:5, 0] = whole[0, 1] = 1  # the second token is far off,
    dropping[1:5, 0] = 1  # or has no mass at all
    parts = {name: [plan_errors(plan, truth, 1.0)] * 2 for name, plan in (("ot", whole), ("uot", dropping))}
    scores = [score("e", "m", name, each) for name, each in parts.items()]
    assert [each.without_mass for each in scores] == [0, 2] and scores[1].error_ms < scores[0].error_ms
    scores.append(score("e", "m", "ctc", [span_errors(truth, truth)]))
    told = table(scores)
    assert [line.split()[1:3] for line in told.splitlines()[1:4]] == [["4", "0"], ["4", "2"], ["2", "0"]]
    assert "Tokens without mass have no time" in told and "ctc of e m lacks 1 of 2 utterances" in told
    assert table(scores[:1]).count("\n") == 1
    write_scores(tmp_path / "x.csv", scores)
    assert [each.without_mass for each in read_scores(tmp_path / "x.csv")] == [0, 2, 0]
    older = [",".join(line.split(",")[:11]) for line in (tmp_path / "x.csv").read_text().splitlines()]
    (tmp_path / "older.csv").write_text("\n".join(older))
    assert {each.without_mass for each in read_scores(tmp_path / "older.csv")} == {-1}

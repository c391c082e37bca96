"""Token times from plans of known times and from CTC posteriors, against brute force; TextGrid and CTM files."""

import itertools
import re

import numpy as np
import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.ctm import Timed, read_ctm, write_ctm
from espnet_gmot.report.align import (
    Span,
    barycentres,
    columns,
    coupling_spans,
    ctc_path,
    ctc_spans,
    inside,
    monotone_path,
)
from espnet_gmot.report.textgrid import textgrid


def known_plan(bounds: list[int], frames: int, noise: float = 0.0) -> np.ndarray:
    """A plan whose token j has the frames bounds[j] … bounds[j + 1] - 1, with some mass elsewhere."""
    plan = np.full((frames, len(bounds) - 1), noise)
    for j, (start, end) in enumerate(itertools.pairwise(bounds)):
        plan[start:end, j] += 1 / (end - start)
    return plan / plan.sum()


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_plan_of_known_times_gives_them(noise: float) -> None:
    bounds = [0, 3, 4, 9, 15, 20]
    spans = coupling_spans(known_plan(bounds, 20, noise), list("一二三四五"), seconds=4.0)
    assert [span.token for span in spans] == list("一二三四五")
    np.testing.assert_allclose([span.start for span in spans], np.array(bounds[:-1]) * 0.2)
    np.testing.assert_allclose([span.end for span in spans], np.array(bounds[1:]) * 0.2)
    if noise == 0:
        np.testing.assert_allclose([span.centre for span in spans], [0.3, 0.7, 1.3, 2.4, 3.5])
        np.testing.assert_allclose([span.confidence for span in spans], 1.0)
    else:
        assert all(0.5 < span.confidence < 1 for span in spans)


def test_mass_in_a_span_and_barycentres_of_a_plan_of_known_times() -> None:
    plan = np.array([[1, 0], [1, 0], [2, 0], [0, 0]], float)  # a quarter, a quarter and a half of the first token
    spans = np.array([[0.5, 2.5], [0, 4]])
    np.testing.assert_allclose(inside(plan, spans, 4.0), [0.125 + 0.25 + 0.25, np.nan])
    np.testing.assert_allclose(barycentres(plan, 4.0), [0.25 * 0.5 + 0.25 * 1.5 + 0.5 * 2.5, np.nan])
    np.testing.assert_allclose(columns(plan).sum(0), [1, 0])


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (6, 3), (7, 2), (8, 5)])
def test_the_monotone_path_holds_as_much_mass_as_any(shape: tuple[int, int]) -> None:
    frames, tokens = shape
    mass = np.random.default_rng(frames).random(shape)
    bounds = monotone_path(mass)
    assert bounds[0] == 0 and bounds[-1] == frames and (np.diff(bounds) >= 1).all()

    def held(cuts: tuple[int, ...]) -> float:
        return sum(mass[a:b, j].sum() for j, (a, b) in enumerate(itertools.pairwise((0, *cuts, frames))))

    best = max(held(cuts) for cuts in itertools.combinations(range(1, frames), tokens - 1))
    assert held(tuple(bounds[1:-1])) == pytest.approx(best)


def test_coarse_nodes_are_cut_in_parts() -> None:
    spans = coupling_spans(known_plan([0, 1, 2], 2).repeat(2, 1), list("abcd"), seconds=2.0)
    assert all(span.end > span.start for span in spans) and spans[-1].end == 2.0
    with pytest.raises(ValueError, match="2 frames can't hold 4 tokens"):
        monotone_path(np.ones((2, 4)))


@pytest.mark.parametrize("labels", [[], [1], [1, 2], [2, 2], [1, 1, 1], [1, 2, 1]])
def test_forced_alignment_is_the_likeliest_of_all_paths(labels: list[int]) -> None:
    posteriors = np.random.default_rng(len(labels)).dirichlet(np.ones(3) / 2, size=6)
    scores = {}
    for path in itertools.product(range(3), repeat=6):
        spelled = [label for label, _ in itertools.groupby(path) if label]
        if spelled == labels:
            scores[path] = np.log(posteriors)[np.arange(6), path].sum()
    positions = ctc_path(np.log(posteriors), labels)
    found = tuple(labels[position] if position >= 0 else 0 for position in positions)
    assert scores[found] == pytest.approx(max(scores.values()))


def test_ctc_times_and_too_few_frames() -> None:
    path = [0, 1, 1, 0, 2, 0, 0, 2]
    log_probs = np.log(np.full((8, 3), 0.05))
    log_probs[np.arange(8), path] = np.log(0.9)
    spans = ctc_spans(log_probs, [1, 2, 2], ["a", "b", "b"], seconds=0.8)
    np.testing.assert_allclose(
        [(s.start, s.end, s.centre) for s in spans], [(0.1, 0.3, 0.2), (0.4, 0.5, 0.45), (0.7, 0.8, 0.75)]
    )
    np.testing.assert_allclose([s.confidence for s in spans], 0.9)
    with pytest.raises(UserError, match="can't spell 3 tokens in 3 frames: they need 4"):
        ctc_path(log_probs[:3], [1, 2, 2])


def test_a_textgrid_covers_the_recording(tmp_path) -> None:
    tiers = {"plan": [Span("你", 0.1, 0.3, 0.2, 1), Span('"', 0.5, 0.9, 0.7, 1)], "ctc": []}
    text = textgrid(tiers, 1.0)
    assert text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n')
    intervals = re.findall(r"xmin = (\S+)\n +xmax = (\S+)\n +text = \"(.*)\"\n", text)
    plan, ctc = intervals[:5], intervals[5:]
    assert [label for *_, label in plan] == ["", "你", "", '""', ""] and ctc == [("0.000000", "1.000000", "")]
    assert plan[0][0] == "0.000000" and plan[-1][1] == "1.000000"
    assert all(before[1] == after[0] for before, after in itertools.pairwise(plan))
    assert "intervals: size = 5" in text


def test_ctm_files_are_read_as_written(tmp_path) -> None:
    times = {"b": [Timed("好", 0.0, 0.25, 0.5)], "a": [Timed("你", 0.125, 0.5), Timed("我", 1.0, 0.1)]}
    write_ctm(tmp_path / "x.ctm", times)
    assert (tmp_path / "x.ctm").read_text().splitlines()[0] == "a 1 0.125 0.500 你 1.000"
    assert read_ctm(tmp_path / "x.ctm") == times
    write_ctm(tmp_path / "x.ctm", {"a  b\u3000c": [Timed("\u3000", 0.0, 0.5)]})
    assert read_ctm(tmp_path / "x.ctm") == {"a_b_c": [Timed("_", 0.0, 0.5)]}
    (tmp_path / "x.ctm").write_text(";; a comment\nA 1 0.5 0.1 b\nA 1 soon 0.1 c\n")
    with pytest.raises(UserError, match=r"x.ctm:3: 'A 1 soon 0.1 c' is no CTM"):
        read_ctm(tmp_path / "x.ctm")

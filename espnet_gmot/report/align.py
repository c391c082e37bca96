"""When each token was spoken, as a coupling or a CTC head says: monotone paths, spans and their errors."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from espnet_gmot.errors import UserError


@dataclass(frozen=True)
class Span:
    """A token and its time.

    Attributes:
        token: the text.
        start, end: seconds.
        centre: seconds; of a plan the barycentre of the token's column, of CTC the middle of its frames.
        confidence: 0 to 1: the share of the column's mass inside the span, or CTC's mean posterior there.
    """

    token: str
    start: float
    end: float
    centre: float
    confidence: float


def columns(plan: np.ndarray) -> np.ndarray:
    """A plan (T, U) with columns that sum to 1: where each token's mass lies; a column without mass stays 0."""
    return plan / np.maximum(plan.sum(0), np.finfo(np.float64).tiny)


def monotone_path(mass: np.ndarray) -> np.ndarray:
    """Cut the frames into one run for each token, in order, so that the runs hold the most mass.

    Args:
        mass: (T, U) with T >= U; each column of a plan normalised, so that all tokens count alike.

    Returns:
        (U + 1,) the bounds: token j has the frames bounds[j] … bounds[j + 1] - 1, at least one.

    Raises:
        ValueError: fewer frames than tokens.
    """
    frames, tokens = mass.shape
    if frames < tokens:
        raise ValueError(f"{frames} frames can't hold {tokens} tokens")
    gathered = np.vstack([np.zeros(tokens), mass.cumsum(0)])  # (T + 1, U): mass before each frame
    best = np.full(frames + 1, -np.inf)  # the most mass that the tokens so far hold when they end before frame t
    best[0] = 0.0
    starts = np.zeros((tokens, frames + 1), dtype=int)
    for token in range(tokens):
        lead = best - gathered[:, token]
        most = np.maximum.accumulate(lead)
        first = np.maximum.accumulate(np.where(lead == most, np.arange(frames + 1), 0))  # where that run began
        best = np.r_[-np.inf, most[:-1] + gathered[1:, token]]
        starts[token, 1:] = first[:-1]
    bounds = [frames]
    for token in reversed(range(tokens)):
        bounds.append(starts[token, bounds[-1]])
    return np.array(bounds[::-1])


def coupling_spans(plan: np.ndarray, tokens: list[str], seconds: float) -> list[Span]:
    """Times of the tokens from a coupling.

    Args:
        plan: (T, U) non-negative; frame t lasts from t to t + 1 of T equal parts of the recording.
        tokens: U texts.
        seconds: length of the recording.
    """
    mass = columns(plan)
    # a graph of coarse nodes (stack) may have fewer than there are tokens: its nodes are then cut in parts
    fine = np.repeat(mass, -(-mass.shape[1] // mass.shape[0]), axis=0)
    bounds = monotone_path(fine)
    shift = seconds / len(fine)
    total = fine.sum(0)
    centres = barycentres(plan, seconds)
    return [
        Span(
            token,
            float(bounds[j] * shift),
            float(bounds[j + 1] * shift),
            float(centres[j]),
            float(fine[bounds[j] : bounds[j + 1], j].sum() / total[j]) if total[j] > 0 else 0.0,
        )
        for j, token in enumerate(tokens)
    ]


def barycentres(plan: np.ndarray, seconds: float) -> np.ndarray:
    """(U,) the mean time of each column's mass in seconds; nan for a token without mass."""
    times = (np.arange(len(plan)) + 0.5) * seconds / len(plan)
    total = plan.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, times @ plan / total, np.nan)


def inside(plan: np.ndarray, spans: np.ndarray, seconds: float) -> np.ndarray:
    """(U,) the share of each column's mass inside a span; nan for a token without mass.

    Args:
        plan: (T, U); a frame's mass is spread evenly over its time.
        spans: (U, 2) start and end of each token in seconds.
        seconds: length of the recording.
    """
    edges = np.arange(len(plan) + 1) * seconds / len(plan)
    late, early = np.minimum(edges[1:, None], spans[:, 1]), np.maximum(edges[:-1, None], spans[:, 0])
    share = np.clip(late - early, 0, None) * len(plan) / seconds  # (T, U) of each frame
    total = plan.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (plan * share).sum(0) / total, np.nan)


def ctc_path(log_probs: np.ndarray, labels: list[int], blank: int = 0) -> np.ndarray:
    """The likeliest CTC path that spells the labels (Viterbi).

    Args:
        log_probs: (T, V) log-posteriors.
        labels: U token ids.
        blank: id of the blank.

    Returns:
        (T,) for each frame the position of its label, or -1 for blank.

    Raises:
        UserError: too few frames for the labels.
    """
    needed = len(labels) + sum(a == b for a, b in pairwise(labels))
    if len(log_probs) < needed:
        raise UserError(f"CTC can't spell {len(labels)} tokens in {len(log_probs)} frames: they need {needed}")
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    skip = np.zeros(len(states), dtype=bool)  # a blank between two different labels may be left out
    skip[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(len(states), -np.inf)
    score[:2] = log_probs[0, states[:2]]
    back = np.zeros((len(log_probs), len(states)), dtype=int)
    for time in range(1, len(log_probs)):
        steps = np.stack(
            [score, np.r_[-np.inf, score[:-1]], np.where(skip, np.r_[-np.inf, -np.inf, score][: len(states)], -np.inf)]
        )
        back[time] = steps.argmax(0)
        score = steps.max(0) + log_probs[time, states]
    state = len(states) - 1 - int(len(labels) > 0 and score[-2] > score[-1])
    path = np.empty(len(log_probs), dtype=int)
    for time in reversed(range(len(log_probs))):
        path[time] = state // 2 if state % 2 else -1
        state -= back[time, state]
    return path


def ctc_spans(log_probs: np.ndarray, labels: list[int], tokens: list[str], seconds: float) -> list[Span]:
    """Times of the tokens from CTC's forced alignment: from the first to the last frame that emits each.

    Args:
        log_probs: (T, V) log-posteriors; blank is 0.
        labels: U token ids.
        tokens: their U texts.
        seconds: length of the recording.
    """
    path, shift = ctc_path(log_probs, labels), seconds / len(log_probs)
    spans = []
    for position, (label, token) in enumerate(zip(labels, tokens, strict=True)):
        frames = np.flatnonzero(path == position)
        start, end = frames[0] * shift, (frames[-1] + 1) * shift
        spans.append(Span(token, start, end, (start + end) / 2, float(np.exp(log_probs[frames, label]).mean())))
    return spans

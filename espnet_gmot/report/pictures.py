"""The page's pictures: what each shows, what to look for in it, and a text for those who don't see it."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet_gmot.errors import UserError
from espnet_gmot.report import figures
from espnet_gmot.report.align import Span
from espnet_gmot.report.courses import courses
from espnet_gmot.report.courses import figure as courses_figure
from espnet_gmot.report.differences import Difference
from espnet_gmot.report.differences import figure as differences_figure
from espnet_gmot.report.doses import figure as doses_figure
from espnet_gmot.report.doses import responses
from espnet_gmot.report.draw import coupling_figure
from espnet_gmot.report.measure import Score
from espnet_gmot.report.results import Result
from espnet_gmot.report.training_log import TrainingLog

#: What of a training is drawn: ESPnet's name, the axis, and what to look for.
CURVES = (
    ("cer_ctc", "CER", "Look at who falls earlier and who ends lower: that is the gain, in steps and in time."),
    ("loss_ctc", "CTC loss", "What every recogniser learns from; if the transfer harms it, its curve stays above."),
    ("loss_gmot", "Transfer, as added", "The whole of what the language model asks for: it should fall and level off."),
    (
        "loss_wd",
        "Nodes (WD)",
        "How unlike matched moments and characters are: if it falls, sound now resembles meaning.",
    ),
    (
        "loss_gwd",
        "Edges (GWD)",
        "How unlike the two webs of relations are: if it falls, the recording is built as the sentence is.",
    ),
    (
        "loss_align",
        "Alignment",
        "Each character against the mean of its moments: lower is closer to the language model.",
    ),
    ("loss_quantity", "Quantity", "How far the recording is from firing once for each character."),
)


#: What to look for at the ends, by whether a prior of the order counts too.
_ALPHA_LOOKS = {
    (0.0, False): "Each character takes what resembles it, wherever it is: look for cells far from the staircase.",
    (1.0, False): "Only relations count: look for a mirrored or shuffled staircase, for relations know no direction.",
    (0.0, True): "Likeness and the order: look how far the brightness strays from the diagonal.",
    (1.0, True): "Relations and the order: if this looks like the others, the order alone makes the staircase.",
}
_EDGE_LOOKS = {
    "before training": "How things stood when training began.",
    "after training": "Look for dark squares along the diagonal of the frames: moments that have become one character.",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        title: short; may be empty.
        svg: the figure, safe markup.
        alt: what it shows, for those who don't see it.
        look: one sentence that says what to look for.
    """

    title: str
    svg: Any
    alt: str
    look: str


@dataclass(frozen=True)
class Coupling:
    """What is drawn of one utterance, as plain arrays.

    Attributes:
        system, utterance: which, and ``text``: its characters.
        tokens: U labels of the plan's columns.
        seconds, speech, rate: the recording.
        plan: (T, U); ``by_alpha``: the same graphs coupled under other shares of the edges.
        path, ctc, truth: spans, where there are such.
        log_probs: (T', V) of the CTC head.
        edges: edge matrices (T, T) and (U, U) now, and ``before`` training the same pair, where that is known.
        prior: whether a prior of the order counts in the plans, in those ``by_alpha`` too.
    """

    system: str
    utterance: str
    text: str
    tokens: Sequence[str]
    seconds: float
    speech: np.ndarray
    rate: int | None
    plan: np.ndarray
    by_alpha: Mapping[float, np.ndarray]
    path: Sequence[Span]
    ctc: Sequence[Span] | None
    truth: Sequence[Span] | None
    log_probs: np.ndarray | None
    edges: tuple[np.ndarray, np.ndarray]
    before: tuple[np.ndarray, np.ndarray] | None = None
    prior: bool = False


def apart(found: Sequence[Difference], base: str, name: str) -> Picture:
    """The differences of all systems from the baseline on one set."""
    words = "; ".join(f"{d.system} {d.value:+.2f} ({d.low:+.2f} to {d.high:+.2f})" for d in found)
    return Picture(
        f"{name}: less {base}'s",
        _safe(differences_figure(found, base), f"apart-{name}"),
        f"Differences of CER in % from {base} on {name}, with 95 % intervals: {words}.",
        "Squares are differences, bars what chance leaves open (across zero: who is better), dots seeds.",
    )


def learning(logs: Mapping[str, TrainingLog]) -> list[Picture]:
    """A picture of every quantity of training that a system reports; logs by system."""
    pictures = []
    for name, label, look in CURVES:
        figure = figures.curves(logs, name, label)
        if figure is not None:
            ends = [
                f"{system} ends at {log.epochs[-1].valid[name]:.3g}"
                for system, log in logs.items()
                if log.epochs and name in log.epochs[-1].valid
            ]
            alt = f"Line charts of {label} on the validation set against steps and against hours: {', '.join(ends)}."
            pictures.append(Picture(label, _safe(figure, f"c-{name}"), alt, look))
    return pictures


def doses(results: Sequence[Result]) -> list[Picture]:
    """Dose and response, one picture for each set of results that has some."""
    drawn: list[Picture] = []
    for name, response in responses(results).items():
        spoken = [
            f"{system} with {' '.join(dose.split())}: {mean:.1f} %"
            for system, line in response.rates.items()
            for dose, mean in line.items()
        ]
        alt = f"Chart of error rates on {name} against what the teacher has read: {'; '.join(spoken)}."
        look = (
            "If knowledge is what is transferred, the bars fall from left to right, and the controls at the right, a "
            "teacher who knows as much but says it of other characters and one to which all are alike, are at 0. Dots: "
            "seeds, each less the baseline's with the same seed; bars: mean and 95 % t interval over these alone."
        )
        drawn.append(Picture(f"Dose and response, {name}", _safe(doses_figure(response), f"d{len(drawn)}"), alt, look))
    return drawn


def along(scores: Sequence[Score]) -> list[Picture]:
    """Alignment along training, where scores of several epochs are among these."""
    lines = courses(scores)
    if not lines:
        return []
    spoken = [
        f"{system}: {', '.join(f'{moment.error_ms:.0f} ms after epoch {moment.epoch}' for moment in moments)}"
        for system, moments in lines.items()
    ]
    look = (
        "A coupling that becomes an alignment falls at the left and rises at the right as training goes on; one that "
        "is made by the order of time alone is flat."
    )
    alt = f"Charts of the error of characters' times against epochs: {'; '.join(spoken)}."
    return [Picture("Alignment along training", _safe(courses_figure(lines), "along"), alt, look)]


def utterance(shown: Coupling, name: str) -> dict[str, Any]:
    """What the page's template needs of one utterance; ``name`` makes the figures' ids unlike others'."""
    figure = coupling_figure(
        shown.plan,
        shown.tokens,
        shown.seconds,
        speech=shown.speech,
        rate=shown.rate,
        path=shown.path,
        ctc=shown.ctc,
        log_probs=shown.log_probs,
        truth=shown.truth,
        page=True,
    )
    held = float(np.mean([span.confidence for span in shown.path]))
    about = f"{shown.seconds:.1f} seconds, {len(shown.tokens)} characters; the path holds {100 * held:.0f} % of it all"
    picture = Picture(
        f"Coupling as trained ({shown.system})",
        _safe(figure, f"{name}-plan"),
        f"Heat map of the coupling of {shown.utterance}: {about}.",
        f"Bright cells should lie along a staircase from the top left to the bottom right, under the marks ({about}).",
    )
    alphas = [
        Picture(
            "",
            _safe(figures.small_coupling(plan, shown.tokens, shown.seconds, f"α = {alpha:g}"), f"{name}-a{index}"),
            f"Heat map of the coupling with alpha {alpha:g}.",
            _ALPHA_LOOKS.get((alpha, shown.prior), "Between the two: look where the staircase is cleanest."),
        )
        for index, (alpha, plan) in enumerate(shown.by_alpha.items())
    ]
    edges: list[Picture] = []
    for when, pair in (("before training", shown.before), ("after training", shown.edges)):
        if pair is not None:
            drawing = figures.edges(*pair, shown.tokens, shown.seconds)
            edges.append(
                Picture(
                    f"Edges {when}, {shown.utterance}",
                    _safe(drawing, f"{name}-e{len(edges)}"),
                    f"Two square heat maps: how unlike moments are, and how unlike characters are, {when}.",
                    _EDGE_LOOKS[when],
                )
            )
    return {
        "name": shown.utterance,
        "text": shown.text,
        "pictures": [picture],
        "alphas": alphas,
        "prior": shown.prior,
        "edges": edges,
    }


def _safe(figure: Any, name: str) -> Any:
    from markupsafe import Markup

    return Markup(figures.svg(figure, name))  # noqa: S704 - Matplotlib's, which escapes text


@contextmanager
def themed() -> Iterator[None]:
    """The style of the page's figures; the reader's fonts have the characters that matplotlib's lack."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UserError("--html needs matplotlib: pip install 'espnet_gmot[report]'") from error
    with mpl.rc_context(figures.STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield

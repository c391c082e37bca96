"""Pictures with matplotlib: a recording, its coupling and what CTC says, on one time axis."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing
from espnet_gmot.report.align import Span, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOG = logging.getLogger(__name__)
_WINDOW, _HOP = 0.025, 0.01  # seconds
#: Readable on the dark maps below, and apart for every kind of colour vision (with the shapes that they draw).
PATH, CTC, TRUTH = "#ffffff", "#56b4e9", "#e69f00"


def new_figure(**options: Any) -> "Figure":
    """A matplotlib figure that no window and no global state knows.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("pictures need matplotlib: pip install 'espnet_gmot[report]'") from error
    return Figure(**options)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path, "wb") as handle:
        figure.savefig(handle, format="png", dpi=150)


@functools.cache
def hanzi_font() -> str | None:
    """The name of an installed font that has Chinese characters; None, with a warning, if there is none."""
    from matplotlib.font_manager import fontManager, get_font

    for entry in sorted(fontManager.ttflist, key=lambda entry: entry.name):
        glyphs = [get_font(entry.fname).get_char_index(ord(character)) for character in "的一"]
        if entry.style == "normal" and all(glyphs) and len(set(glyphs)) == 2:  # fonts of last resort have one for all
            return entry.name
    _LOG.warning("no installed font has Chinese characters, so they are labelled by pinyin: install fonts-noto-cjk")
    return None


def _need_hanzi(tokens: Sequence[str]) -> bool:
    return any(ord(character) >= 0x2E80 for token in tokens for character in token)


def labels(tokens: Sequence[str]) -> list[str]:
    """Tokens as the installed fonts can write them: pinyin where no font has Chinese characters."""
    if not _need_hanzi(tokens) or hanzi_font():
        return list(tokens)
    try:
        from pypinyin import lazy_pinyin
    except ImportError as error:
        raise UserError(
            "no installed font has Chinese characters: install fonts-noto-cjk, or pypinyin for pinyin labels"
        ) from error
    return ["".join(lazy_pinyin(token)) for token in tokens]


def spectrum(speech: np.ndarray, rate: int | None) -> np.ndarray:
    """What is drawn above a coupling: (frequencies or columns, frames).

    Args:
        speech: (samples,) a waveform: its power in dB; or (frames, width) features: each column standardised.
        rate: Hz of a waveform, None for features.
    """
    if rate is None:
        return ((speech - speech.mean(0)) / (speech.std(0) + 1e-8)).T
    window, hop = int(_WINDOW * rate), int(_HOP * rate)
    padded = np.pad(speech, (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: len(speech) : hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)) ** 2
    decibel = 10 * np.log10(power + 1e-12)
    return np.maximum(decibel, decibel.max() - 70).T  # a dynamic range of 70 dB, as Praat draws it


def draw_speech(axes: "Axes", speech: np.ndarray, rate: int | None, seconds: float) -> None:
    """The recording: frequency over time, or features over time."""
    top = rate / 2000 if rate else speech.shape[1]
    axes.imshow(
        spectrum(speech, rate),
        origin="lower",
        aspect="auto",
        cmap="Greys",
        extent=(0, seconds, 0, top),
        interpolation="bilinear",
    )
    axes.set_ylabel("kHz" if rate else "feature")


def draw_heat(axes: "Axes", matrix: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """A matrix in colours from 0 to its largest entry; ``extent`` is (left, right, bottom, top)."""
    axes.imshow(matrix, aspect="auto", cmap="magma", vmin=0, extent=extent, interpolation="nearest", rasterized=True)


def draw_plan(axes: "Axes", plan: np.ndarray, tokens: Sequence[str], seconds: float, *, page: bool = False) -> None:
    """The coupling (T, U): time across, tokens down, and in colour where each token's mass lies.

    Colours go from 0 to the largest share of any token's mass in one frame. On a page the reader's fonts write tokens.
    """
    draw_heat(axes, columns(plan).T, (0, seconds, len(tokens) - 0.5, -0.5))
    font = hanzi_font() if not page and _need_hanzi(tokens) else None
    style: dict[str, Any] = {"fontfamily": font} if font else {}
    axes.set_yticks(range(len(tokens)), list(tokens) if page else labels(tokens), **style)
    axes.tick_params(axis="y", length=0)


def draw_path(axes: "Axes", spans: Sequence[Span], color: str, label: str) -> None:
    """Spans as a staircase over a coupling: token j in row j."""
    times = [time for span in spans for time in (span.start, span.end)]
    rows = [row for row in range(len(spans)) for _ in range(2)]
    axes.plot(times, rows, color="black", linewidth=2.6, alpha=0.6)
    axes.plot(times, rows, color=color, linewidth=1.3, label=label)


def draw_boxes(axes: "Axes", spans: Sequence[Span], color: str, label: str) -> None:
    """Spans as boxes over a coupling, one in each row."""
    from matplotlib.patches import Rectangle

    for row, span in enumerate(spans):
        place, width = (span.start, row - 0.46), span.end - span.start
        name = label if row == 0 else None
        axes.add_patch(Rectangle(place, width, 0.92, fill=False, edgecolor="black", linewidth=2.6, alpha=0.6))
        axes.add_patch(Rectangle(place, width, 0.92, fill=False, edgecolor=color, linewidth=1.3, label=name))


def draw_marks(axes: "Axes", spans: Sequence[Span], color: str, label: str) -> None:
    """The middle of each span as a mark over a coupling."""
    axes.plot(
        [(span.start + span.end) / 2 for span in spans],
        range(len(spans)),
        "D",
        color=color,
        markeredgecolor="black",
        markersize=5,
        label=label,
    )


def draw_spikes(axes: "Axes", log_probs: np.ndarray, seconds: float) -> None:
    """Where the CTC head says that something is spoken: 1 - p(blank) over time."""
    times = (np.arange(len(log_probs)) + 0.5) * seconds / len(log_probs)
    spoken = 1 - np.exp(log_probs[:, 0])
    axes.fill_between(times, spoken, step="mid", color=CTC, alpha=0.5, linewidth=0)
    axes.step(times, spoken, where="mid", color="#0072b2", linewidth=0.8)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("1 − p(blank)")


def coupling_figure(
    plan: np.ndarray,
    tokens: Sequence[str],
    seconds: float,
    *,
    speech: np.ndarray,
    rate: int | None,
    path: Sequence[Span],
    ctc: Sequence[Span] | None = None,
    log_probs: np.ndarray | None = None,
    truth: Sequence[Span] | None = None,
    title: str = "",
    page: bool = False,
) -> "Figure":
    """Spectrogram, coupling with its best path and CTC's spikes, and CTC's posterior, on one time axis.

    Args:
        plan: (T, U).
        tokens: U texts.
        seconds: length of the recording.
        speech: (samples,) or (frames, width).
        rate: Hz of a waveform, None for features.
        path: the monotone path that holds the most mass.
        ctc: CTC's forced alignment, one span for each token.
        log_probs: (T', V) of the CTC head.
        truth: when the tokens were spoken, where that is known.
        title: of the figure.
        page: for a page, whose reader's fonts write the tokens and whose text explains the colours.
    """
    heights = [1.1, max(2.5, 0.2 * len(tokens)), *([0.7] if log_probs is not None else [])]
    figure = new_figure(figsize=(max(6.0, 1.6 * seconds), sum(heights) + 1), layout="constrained")
    rows = figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights})
    draw_speech(rows[0], speech, rate, seconds)
    draw_plan(rows[1], plan, tokens, seconds, page=page)
    draw_path(rows[1], path, PATH, "path with the most mass")
    if truth is not None:
        draw_boxes(rows[1], truth, TRUTH, "when it was spoken")
    if ctc is not None:
        draw_marks(rows[1], ctc, CTC, "CTC's forced alignment")
    if log_probs is not None:
        draw_spikes(rows[-1], log_probs, seconds)
    rows[0].set_title(title, fontsize="medium")
    rows[-1].set_xlabel("seconds")
    if not page:
        figure.legend(*rows[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, facecolor="#9a9a9a")
    return figure

"""The page's figures: SVG that takes the page's colours, so that one picture serves light and dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet_gmot.report.align import Span, columns
from espnet_gmot.report.draw import CTC, PATH, draw_boxes, draw_marks, draw_path, draw_speech, draw_spikes, new_figure
from espnet_gmot.report.training_log import TrainingLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Apart for every kind of colour vision (Okabe and Ito), and told apart by dashes and marks as well.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKS = "osD^v<>"
#: matplotlib's settings while figures are made and saved.
STYLE = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the reader's own fonts, Chinese ones too
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def svg(figure: "Figure", name: str) -> str:
    """A figure as SVG to stand in a page: black becomes the page's text colour.

    Args:
        figure: drawn with black for whatever has to be seen on light and dark alike.
        name: another one for each figure of a page; the ids in it begin so.
    """
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, dpi=110)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="([\d.]+)pt" height="([\d.]+)pt"', r'\1style="--width: \2pt"', text, count=1)
    for pattern in (r'id="', r"url\(#", r'xlink:href="#'):
        text = re.sub(f'({pattern})(?=[^)"]*)', rf"\g<1>{name}-", text)
    text = re.sub(r"font(?:-family)?: [^;\"]*?'DejaVu Sans'[^;\"]*", "", text)
    return text.replace("#000000", "currentColor")


def drawn(height: float, width: float = 8.0, **options: Any) -> "Figure":
    """A new figure in the page's style; see :func:`themed` for what is drawn into it."""
    return new_figure(figsize=(width, height), layout="constrained", **options)


def curves(logs: Mapping[str, TrainingLog], name: str, label: str) -> "Figure | None":
    """One quantity of training against steps and against hours; None if no system reports it.

    Args:
        logs: by system.
        name: ESPnet's, such as ``loss_ctc``.
        label: of the axis.
    """
    shown = {
        system: log for system, log in logs.items() if any(np.isfinite(e.valid.get(name, np.nan)) for e in log.epochs)
    }
    if not shown:
        return None
    figure = drawn(2.8)
    left, right = figure.subplots(1, 2, sharey=True)
    for index, system in enumerate(logs):
        if system not in shown:
            continue
        epochs = shown[system].epochs
        values = [epoch.valid.get(name, np.nan) for epoch in epochs]
        style = {"color": COLORS[index % 7], "linestyle": DASHES[index % 7], "marker": MARKS[index % 7]}
        hours = np.cumsum([epoch.seconds for epoch in epochs]) / 3600
        for axes, times in ((left, [epoch.steps for epoch in epochs]), (right, hours)):
            axes.plot(times, values, label=system, markersize=3.5, linewidth=1.4, **style)
    left.set_xlabel("steps")
    right.set_xlabel("hours of training")
    left.set_ylabel(label)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def _heat(
    axes: "Axes", matrix: np.ndarray, extent: tuple[float, float, float, float], top: float | None = None
) -> None:
    axes.imshow(
        matrix, aspect="auto", cmap="magma", vmin=0, vmax=top, extent=extent, interpolation="nearest", rasterized=True
    )


def _token_rows(axes: "Axes", tokens: Sequence[str]) -> None:
    axes.set_yticks(range(len(tokens)), tokens)
    axes.tick_params(axis="y", length=0)


def coupling(
    plan: np.ndarray,
    tokens: Sequence[str],
    seconds: float,
    *,
    speech: np.ndarray,
    rate: int | None,
    path: Sequence[Span],
    ctc: Sequence[Span] | None,
    log_probs: np.ndarray | None,
    truth: Sequence[Span] | None,
) -> "Figure":
    """The page's form of :func:`espnet_gmot.report.draw.coupling_figure`, which see for the arguments."""
    rows = 3 if log_probs is not None else 2
    heights = [1.0, max(2.4, 0.22 * len(tokens)), 0.6][:rows]
    figure = drawn(sum(heights) + 0.9, max(6.5, 1.6 * seconds))
    axes = figure.subplots(rows, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    draw_speech(axes[0], speech, rate, seconds)
    _heat(axes[1], columns(plan).T, (0, seconds, len(tokens) - 0.5, -0.5))
    _token_rows(axes[1], tokens)
    draw_path(axes[1], path, PATH, "path with the most mass")
    if truth:
        draw_boxes(axes[1], truth, "#e69f00", "when it was spoken")
    if ctc:
        draw_marks(axes[1], ctc, CTC, "CTC's alignment")
    if log_probs is not None:
        draw_spikes(axes[2], log_probs, seconds)
    axes[-1].set_xlabel("seconds")
    return figure


def small_coupling(plan: np.ndarray, tokens: Sequence[str], seconds: float, title: str) -> "Figure":
    """A coupling alone, to stand beside others."""
    figure = drawn(max(2.4, 0.2 * len(tokens) + 0.8), 3.4)
    axes = figure.subplots()
    _heat(axes, columns(plan).T, (0, seconds, len(tokens) - 0.5, -0.5))
    _token_rows(axes, tokens)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel("seconds")
    return figure


def edges(acoustic: np.ndarray, linguistic: np.ndarray, tokens: Sequence[str], seconds: float) -> "Figure":
    """The edge matrices of both graphs, (T, T) and (U, U), each from 0 to its largest edge."""
    figure = drawn(3.1, 6.6)
    left, right = figure.subplots(1, 2)
    _heat(left, acoustic, (0, seconds, seconds, 0))
    left.set_title("frames", fontsize="medium")
    left.set_xlabel("seconds")
    left.set_ylabel("seconds")
    count = len(tokens)
    _heat(right, linguistic, (-0.5, count - 0.5, count - 0.5, -0.5))
    _token_rows(right, tokens)
    right.set_xticks(range(count), tokens)
    right.tick_params(axis="x", length=0, rotation=90 if max(map(len, tokens)) > 1 else 0)
    right.set_title("tokens", fontsize="medium")
    return figure

"""The page's figures: SVG that takes the page's colours, so that one picture serves light and dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from espnet_gmot.report.draw import draw_heat, draw_plan, new_figure
from espnet_gmot.report.training_log import TrainingLog

if TYPE_CHECKING:
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
    """A new figure of the page's size, in inches."""
    return new_figure(figsize=(width, height), layout="constrained", **options)


def line_style(index: int) -> dict[str, Any]:
    """Colour, dashes and marks of a chart's line; from the eighth on, a colour comes again with other ones."""
    other = index + index // 7
    return {"color": COLORS[index % 7], "linestyle": DASHES[other % 7], "marker": MARKS[other % 7]}


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
        style = line_style(index)
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


def small_coupling(plan: np.ndarray, tokens: Sequence[str], seconds: float, title: str) -> "Figure":
    """A coupling alone, to stand beside others."""
    figure = drawn(max(2.4, 0.2 * len(tokens) + 0.8), 3.4)
    axes = figure.subplots()
    draw_plan(axes, plan, tokens, seconds, page=True)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel("seconds")
    return figure


def edges(acoustic: np.ndarray, linguistic: np.ndarray, tokens: Sequence[str], seconds: float) -> "Figure":
    """The edge matrices of both graphs, (T, T) and (U, U), each from 0 to its largest edge."""
    figure = drawn(3.1, 6.6)
    left, right = figure.subplots(1, 2)
    draw_heat(left, acoustic, (0, seconds, seconds, 0))
    left.set_title("frames", fontsize="medium")
    left.set_xlabel("seconds")
    left.set_ylabel("seconds")
    count = len(tokens)
    draw_heat(right, linguistic, (-0.5, count - 0.5, count - 0.5, -0.5))
    right.set_yticks(range(count), tokens)
    right.tick_params(axis="y", length=0)
    right.set_xticks(range(count), tokens)
    right.tick_params(axis="x", length=0, rotation=90 if max(map(len, tokens)) > 1 else 0)
    right.set_title("tokens", fontsize="medium")
    return figure

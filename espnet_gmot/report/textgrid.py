"""Praat's TextGrid: tiers of labelled intervals (the long text format)."""

from collections.abc import Mapping, Sequence

from espnet_gmot.report.align import Span


def textgrid(tiers: Mapping[str, Sequence[Span]], seconds: float) -> str:
    """A TextGrid with one interval tier for each name.

    Args:
        tiers: spans in order, which don't overlap; what lies between them becomes empty intervals.
        seconds: length of the recording.
    """
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {seconds:.6f}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, spans) in enumerate(tiers.items(), 1):
        intervals = _filled(spans, seconds)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {seconds:.6f}", f"        intervals: size = {len(intervals)}"]
        for index, (start, end, label) in enumerate(intervals, 1):
            lines += [
                f"        intervals [{index}]:",
                f"            xmin = {start:.6f}",
                f"            xmax = {end:.6f}",
            ]
            lines += [f"            text = {_quoted(label)}"]
    return "\n".join(lines) + "\n"


def _filled(spans: Sequence[Span], seconds: float) -> list[tuple[float, float, str]]:
    """Intervals that cover the recording without a gap."""
    intervals, time = [], 0.0
    for span in spans:
        if span.start - time > 1e-6:
            intervals.append((time, span.start, ""))
            time = span.start
        intervals.append((time, span.end, span.token))  # each begins where the last one ends, to the digit
        time = span.end
    if seconds - time > 1e-6 or not intervals:
        intervals.append((time, seconds, ""))
    return intervals


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'

"""A training that goes on must go on with the options that it was begun with.

ESPnet writes the options of each call into the experiment's config.yaml and takes the parameters of the last one's
checkpoint. With other options of the transfer nothing would fail: the model would be half of one system, half of
another, or, where all epochs are there, wholly of the one while config.yaml names the other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.fields import written
from espnet_gmot.hosts.features import archive_of, note_of, other_layers
from espnet_gmot.hub import is_folder, model_digest

# the preset's settings are compared one by one; who solves it changes no plan; the teacher's own are looked at below
_APART = ("preset", "backend", "teacher", "teacher_width", "teacher_layer", "teacher_stats")
_FEATURES = ("model_digest", "layer", "special_tokens", "normalise", "stats")

Streams = Sequence[Sequence[str]]


def refuse_other_options(folder: Path, begun: tuple[GMOTConfig, Streams], now: tuple[GMOTConfig, Streams]) -> None:
    """Check that a training goes on with the transfer and the teacher that it was begun with.

    Options under old names, at defaults, or that aren't read count as what they mean, and a teacher that was moved as
    the same one.

    Args:
        folder: the experiment's, for the message.
        begun: the transfer's options in its config.yaml, and the streams of training data there.
        now: those of this call.

    Raises:
        UserError: it doesn't; names each option with both values.
    """
    if found := [*_options(begun[0], now[0]), *_teachers(*begun, *now)]:
        told = "; ".join(f"{name}: {was}, not {given}" for name, was, given in found)
        raise UserError(f"{folder}: was begun with {told}: give another --asr_tag, or remove it")


def _options(old: GMOTConfig, new: GMOTConfig) -> Iterator[tuple[str, str, str]]:
    """Name and both values of each option that is read and differs."""
    for field in fields(GMOTConfig):
        when, was, now = field.metadata["read_only_if"], getattr(old, field.name), getattr(new, field.name)
        if field.name not in _APART and was != now and (when is None or when.holds(old) or when.holds(new)):
            yield field.name, written(was), written(now)
    archived = old.teacher is None and new.teacher is None
    if other_layers(old.layers, new.layers) or (not archived and old.layers != new.layers):
        yield "teacher_layer", written(old.teacher_layer), written(new.teacher_layer)


def _teachers(old: GMOTConfig, before: Streams, new: GMOTConfig, streams: Streams) -> Iterator[tuple[str, str, str]]:
    """The same of the teachers, as far as they can be known."""
    was, now = archive_of(before), archive_of(streams)
    if old.teacher and new.teacher:
        if not _same(old.teacher, new.teacher, _model):
            yield "teacher", old.teacher, new.teacher
        if old.teacher_stats and new.teacher_stats and not _same(old.teacher_stats, new.teacher_stats, _statistics):
            yield "teacher_stats", old.teacher_stats, new.teacher_stats
        elif bool(old.teacher_stats) != bool(new.teacher_stats):
            yield "teacher_stats", written(old.teacher_stats), written(new.teacher_stats)
    elif old.teacher or new.teacher:  # from archives to online, or back
        one, two = (config.teacher or note_of(at).get("model") for config, at in ((old, was), (new, now)))
        if one and two and not _same(one, two, _model):
            yield "teacher", one, two
    elif was and now and not _same(str(was), str(now), _features):
        yield "features of the teacher", str(was), str(now)


def _same(one: str, two: str, known: Callable[[str], Any]) -> bool:
    """Whether two paths lead to the same thing; where one leads nowhere any more, whether they end alike."""
    if one == two:
        return True
    first, second = known(one), known(two)
    return Path(one).name == Path(two).name if first is None or second is None else first == second


def _features(folder: str) -> dict[str, Any] | None:
    note = note_of(Path(folder))
    return {key: note.get(key) for key in _FEATURES} if note else None


def _model(name: str) -> str | None:
    try:
        return model_digest(name) if is_folder(name) else None
    except UserError:
        return None


def _statistics(place: str) -> str | None:
    from espnet_gmot.teacher.normalise import FeatureStats

    try:
        return FeatureStats.load(Path(place)).key
    except UserError:
        return None

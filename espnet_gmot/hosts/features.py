"""What a training's options say of the teacher's features, and what the features say of themselves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.fields import written

STREAM = "teacher"


def archive_of(streams: Sequence[Sequence[str]]) -> Path | None:
    """The folder of archived features among a training's data streams; None if there is none.

    Args:
        streams: path, name and type of each, as ESPnet's ``train_data_path_and_name_and_type``.
    """
    return next((Path(stream[0]).parent for stream in streams if list(stream[1:2]) == [STREAM]), None)


def note_of(folder: Path | None) -> dict[str, Any]:
    """The content of the teacher.json that dump-teacher left in a folder; empty where there is none to read."""
    try:
        content = json.loads((folder / "teacher.json").read_text(encoding="utf8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def other_layers(one: Sequence[int], two: Sequence[int]) -> bool:
    """Whether layers surely are others; how deep the teacher is isn't known, so those from the end may be any."""
    return len(one) != len(two) or any(a != b for a, b in zip(one, two, strict=True) if min(a, b) >= 0)


def refuse_other_features(config: GMOTConfig, streams: Sequence[Sequence[str]], *, named: bool) -> None:
    """Check that the width and the layers in gmot_conf are those of the features.

    Args:
        config: the resolved options.
        streams: the training's data streams.
        named: the user wrote ``teacher_layer``; of a preset's layers only their number counts.

    Raises:
        UserError: they aren't; names the file that says so.
    """
    if config.teacher:
        from espnet_gmot.teacher.plm import PLMTeacher

        if config.teacher_width is not None:
            width = PLMTeacher(config.teacher, layer=config.layers).width
            _check_width(config, width, config.teacher, "leave teacher_width out: an online teacher's is known")
        return
    folder = archive_of(streams)
    note = note_of(folder)
    source, there = f"{folder}/teacher.json", note.get("layer")
    layers = there if isinstance(there, list) else [there]
    known = all(isinstance(layer, int) for layer in layers)
    if known and (len(layers) != len(config.layers) or (named and other_layers(layers, config.layers))):
        wanted = " ".join(map(str, config.layers))
        raise UserError(
            f"gmot_conf: teacher_layer: {written(config.teacher_layer)}, but {source} says {there}: write "
            f"teacher_layer: {there}, or make others by dump-teacher --layer {wanted}"
        )
    if isinstance(there := note.get("width"), int):
        _check_width(config, there, source, f"write teacher_width: {there}")


def _check_width(config: GMOTConfig, width: int, source: str, mend: str) -> None:
    given = config.teacher_width
    if given is not None and width != given:
        raise UserError(f"gmot_conf: teacher_width: {given}, but {source} says {width}: {mend}")

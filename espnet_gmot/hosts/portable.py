"""Configurations that travel: an experiment's ``config.yaml`` without the plugin's keys and with files beside it.

ESPnet opens a path in a configuration as the process finds it, from its working directory. A recipe's paths hold in
the recipe's folder only. So an exported experiment gets copies of the files and their absolute paths; inside a zip
the paths are relative, and ESPnet makes them absolute where it unpacks.
"""

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from espnet_gmot.errors import UserError
from espnet_gmot.hosts.places import RECIPE, roots

STREAM = "teacher"
PARTS = ("train", "valid")
RESULTS = "RESULTS.md"
#: Options whose value may be a file that recognition reads, beside the `_conf` of what ESPnet chooses from.
_FILES = ("token_list", "bpemodel", "non_linguistic_symbols", "ctc_conf", "joint_net_conf")


def refuse(config: dict[str, Any], task: Any, experiment: Path) -> None:
    """Say which option stands in the way of an export, if any.

    Args:
        config: the experiment's configuration.
        task: ESPnet's ASRTask, the plugin registered.
        experiment: its folder, for messages.

    Raises:
        UserError: naming the option and the way round it.
    """
    where = f"{experiment}/config.yaml"
    if config.get("use_adapter"):
        raise UserError(f"{where}: use_adapter: true: merge the adapter into the model first; export doesn't know how")
    own = []
    for choices in task.class_choices_list:
        chosen = config.get(choices.name)
        kind = choices.classes.get(chosen) if isinstance(chosen, str) else None
        if kind is not None and kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
            own.append(choices.name)
    if "frontend" in own and config.get("input_size") is None:
        raise UserError(
            f"{where}: frontend: {config['frontend']} is the plugin's, stock ESPnet has no such frontend: extract its "
            "features (run.sh --feats_type extracted, or dump-frontend), train on them and export that"
        )
    for name in own:
        if name not in ("model", "frontend"):
            raise UserError(f"{where}: {name}: {config[name]} is the plugin's: train with a choice of ESPnet's own")
    if "model" not in own:
        raise UserError(f"{where}: model: {config.get('model')} is ESPnet's own: there is nothing to export")


def stock_config(config: dict[str, Any], task: Any) -> dict[str, Any]:
    """The configuration without what only the plugin knows.

    Args:
        config: the experiment's.
        task: ESPnet's ASRTask.

    Returns:
        A copy: ``model: espnet``, no ``gmot_conf``, no stream of teacher's features and no shapes of it.
    """
    config = copy.deepcopy(config)
    config["model"] = "espnet"
    config["model_conf"].pop("gmot_conf", None)
    if config.get("task") == "espnet_gmot.hosts.espnet3.ASRTask":
        config["task"] = "espnet3.systems.esp2_asr.task.ASRTask"
    names: set[str] = set()
    for part in PARTS:
        streams = [s for s in config.get(f"{part}_data_path_and_name_and_type") or [] if s[1] != STREAM]
        names |= {stream[1] for stream in streams}
        shapes = config.get(f"{part}_shape_file") or []
        kept = [i for i, shape in enumerate(shapes) if not Path(shape).name.startswith(f"{STREAM}_shape")]
        folds = config.get("fold_length") or []
        if part == "train" and len(folds) == len(shapes):
            config["fold_length"] = [folds[i] for i in kept]
        config[f"{part}_data_path_and_name_and_type"] = streams
        config[f"{part}_shape_file"] = [shapes[i] for i in kept]
    if names <= {*task.required_data_names(), *task.optional_data_names()}:
        config["allow_variable_data_keys"] = False
    return config


def relocate(
    config: dict[str, Any], task: Any, experiment: Path, out: Path
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Copy the files that recognition reads into a folder, and point the configuration there.

    Args:
        config: the experiment's configuration.
        task: ESPnet's ASRTask: what it builds from ``*_conf`` may read files. Training's own files stay behind.
        experiment: its folder; relative paths are tried from each folder above it, then from the working directory.
        out: the folder that receives the files.

    Returns:
        The new configuration, the names of the copies, and the folders that the configuration needs besides.

    Raises:
        UserError: a file is missing.
    """
    folders = roots(experiment)
    copies: dict[Path, str] = {}
    outside: list[str] = []

    def moved(value: str) -> str:
        """A path's copy in `out`; whatever is no path stays."""
        if os.sep not in value and not Path(value).suffix:
            return value  # `char` is a token type, even where a file of that name lies about
        source = next((root / value for root in folders if (root / value).exists()), None)
        if source is None:
            return value
        if source.is_dir():
            outside.append(str(source))
            return str(source.absolute())
        source = source.resolve()
        if source not in copies:
            taken = source.name in copies.values()
            copies[source] = f"{len(copies)}_{source.name}" if taken else source.name
            shutil.copy2(source, out / copies[source])
        return str(out.absolute() / copies[source])

    # a list of tokens holds no paths, whatever a token looks like
    keys = {*_FILES, *(f"{choices.name}_conf" for choices in task.class_choices_list)}
    keys -= {"token_list"} if isinstance(config.get("token_list"), list) else set()
    result = {key: _texts(value, moved) if key in keys else value for key, value in config.items()}
    for option, value in (
        ("normalize_conf: stats_file", (config.get("normalize_conf") or {}).get("stats_file")),
        ("bpemodel", config.get("bpemodel") if config.get("token_type") == "bpe" else None),
        ("token_list", config["token_list"] if isinstance(config.get("token_list"), str) else None),
    ):
        if value is not None and not any((root / value).is_file() for root in folders):
            raise UserError(f"{experiment}/config.yaml: {option}: '{value}': no such file: {RECIPE}")
    names = list(copies.values())
    if (experiment / RESULTS).is_file():
        shutil.copy2(experiment / RESULTS, out / RESULTS)
        names.append(RESULTS)
    return result, names, outside


def relative(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration with the absolute paths of a folder's files made relative to it.

    Args:
        config: a configuration from :func:`relocate`.
        folder: the folder that it was made for.
    """
    start = f"{folder.absolute()}{os.sep}"
    return _texts(config, lambda value: value.removeprefix(start))


def moved(config: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    """The configuration with other paths.

    Args:
        config: any.
        places: the new path of each file that moves, by the path that the configuration has.
    """
    return _texts(config, lambda value: places.get(value, value))


def sampling_rate(config: dict[str, Any]) -> int:
    """Samples a second that the frontend wants; ESPnet's default is 16 kHz."""
    import humanfriendly

    rate = (config.get("frontend_conf") or {}).get("fs", 16000)
    return humanfriendly.parse_size(rate) if isinstance(rate, str) else int(rate)


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    """Every text in nested dicts and lists, changed."""
    if isinstance(value, dict):
        return {key: _texts(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value

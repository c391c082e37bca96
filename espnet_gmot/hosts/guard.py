"""What the launcher and the engine look at before ESPnet's training starts, while nothing is overwritten yet.

asr.sh names an experiment after its configuration's file, not after what that says. So a configuration that was edited
in place leads training into the folder of a trained model: ESPnet writes its config.yaml anew, then fails to load the
old checkpoint, and the trained model no longer decodes; or, where the parameters have the same shapes, goes on as if
nothing had changed. No ESPnet module is imported here but a parser's action.
"""

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.files import read_mapping, require_free
from espnet_gmot.hosts.begun import refuse_other_options
from espnet_gmot.hosts.features import refuse_other_features

STOCK, OURS, FRONTEND = "espnet", "gmot", "hf_speech"
_TRAINING = ("espnet2.bin.asr_train", "espnet2.bin.lightning_train")
_OTHERS = ("espnet2.bin.lm_train",)  # of these, only whether another holds the folder
_NESTED = ("model_conf", "frontend_conf", "normalize_conf")
_LAUNCHERS = ("espnet2.bin.launch",)


def before(module: str, words: list[str]) -> None:
    """Look at an ESPnet module's options before it runs; only trainings are looked at.

    Args:
        module: such as espnet2.bin.asr_train, or espnet2.bin.launch, which starts it in asr.sh's stage 11.
        words: its options.

    Raises:
        UserError: another training holds the folder, the training would overwrite another kind of model or go on
            with another transfer than it was begun with, its teacher's features are others than it says, or it would
            fail in its first step.
    """
    trainings = (*_TRAINING, *_OTHERS)
    if launched := module in _LAUNCHERS:
        module, start = next(((word, i) for i, word in enumerate(words) if word in trainings), ("", 0))
        words = words[start + 1 :]
    if module not in trainings:
        return
    args = options_of(words)
    if launched or not _one_of_several(words):
        _refuse_a_second(args)
    if module in _TRAINING:
        _refuse_another_kind(args)
        _refuse_absent_statistics(args)
        _refuse_other_statistics(args)
        _refuse_another_teacher(args)


def options_of(words: list[str]) -> argparse.Namespace:
    """The few options that are looked at, from the configuration and the command line, as ESPnet merges them.

    Args:
        words: those of a training, such as ``--config conf/train.yaml --model_conf gmot_conf.alpha=1``.

    Raises:
        UserError: a value that can't be read.
    """
    from espnet2.utils.nested_dict_action import NestedDictAction
    from espnet2.utils.types import str2bool

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = _fail  # type: ignore[assignment, method-assign]  # errors of one line
    for name in ("config", "output_dir", "input_size"):
        parser.add_argument(f"--{name}")
    for name in ("collect_stats", "resume"):
        parser.add_argument(f"--{name}", type=str2bool, default=False)
    parser.add_argument("--model", default=STOCK)
    parser.add_argument("--frontend", default="default")
    for name in _NESTED:
        parser.add_argument(f"--{name}", action=NestedDictAction, default={})
    parser.add_argument("--train_data_path_and_name_and_type", action="append", default=[], type=_stream)
    try:
        path = parser.parse_known_args(words)[0].config
    except yaml.YAMLError as error:
        raise UserError(f"{' '.join(words)}: no YAML in it: {' '.join(str(error).split())}") from error
    if path and Path(path).is_file():
        content = _read(Path(path))
        known = vars(parser.parse_args([]))
        parser.set_defaults(**{key: value for key, value in content.items() if key in known and value is not None})
    args = parser.parse_known_args(words)[0]
    for name in _NESTED:
        if not isinstance(getattr(args, name), dict):  # ESPnet's to complain about
            setattr(args, name, {})
    return args


def _fail(message: str) -> None:
    raise UserError(message.removeprefix("argument "))


def _stream(word: str) -> list[str]:
    return word.split(",")


def _read(path: Path) -> dict[str, Any]:
    """A YAML mapping; an unreadable one is ESPnet's to complain about."""
    try:
        return read_mapping(path)
    except UserError:
        return {}


def _one_of_several(words: list[str]) -> bool:
    """Whether this is one process of a training on several machines, whose first one may hold the folder already."""
    return "RANK" in os.environ or any(word.startswith(("--dist_rank", "--dist_launcher")) for word in words)


def _refuse_a_second(args: argparse.Namespace) -> None:
    """Another training writes into the experiment's folder: ESPnet would write its config.yaml anew all the same."""
    if args.output_dir and not args.collect_stats:
        require_free(Path(args.output_dir))


def _refuse_another_kind(args: argparse.Namespace) -> None:
    """The experiment's folder holds a trained model of another kind."""
    folder = Path(args.output_dir or "")
    trained = [path.name for path in folder.glob("*.pth")] if args.output_dir else []
    if not trained or not (folder / "config.yaml").is_file():
        return
    kind = _read(folder / "config.yaml").get("model") or STOCK
    if kind == args.model or OURS not in (kind, args.model):
        return
    start = next((name for name in sorted(trained) if name.endswith(".ave.pth")), "latest.pth")
    if args.model == OURS:
        fix = f"to start from it, --pretrained_model {folder / start}"
    else:
        fix = f"for a stock model out of it: python3 -m espnet_gmot export {folder} --out {folder}_stock"
    raise UserError(
        f"{folder}: holds a trained model: {kind}, whose config.yaml model: {args.model} of {args.config} would "
        f"overwrite: give another --asr_tag; {fix}"
    )


def _refuse_absent_statistics(args: argparse.Namespace) -> None:
    """asr.sh's stage 11 before its stage 10."""
    stats = args.normalize_conf.get("stats_file")
    if stats and not Path(stats).is_file() and not args.collect_stats:
        raise UserError(f"{stats}: no such file: stage 10 makes these statistics: --stage 10")


def _refuse_other_statistics(args: argparse.Namespace) -> None:
    """Statistics of filterbanks before a frontend of another width."""
    stats = args.normalize_conf.get("stats_file")
    model = (args.frontend_conf or {}).get("model")
    if args.frontend != FRONTEND or args.input_size or not model or not stats or not Path(stats).is_file():
        return
    from espnet_gmot.speech.encoders import speech_width

    with np.load(stats, allow_pickle=False) as known:
        there = known["sum"].shape[-1] if "sum" in known else None
    width = speech_width(model)
    if there is not None and there != width:
        raise UserError(
            f"{stats}: statistics of {there} columns, but frontend: {FRONTEND} of {model} gives {width}: give an "
            "--asr_stats_dir of its own, and stage 10"
        )


def _refuse_another_teacher(args: argparse.Namespace) -> None:
    """Features that aren't those of gmot_conf, or a training begun with another transfer or teacher."""
    if args.model != OURS:
        return
    options = args.model_conf.get("gmot_conf")
    config, streams = _resolved(options), args.train_data_path_and_name_and_type
    refuse_other_features(config, streams, named="teacher_layer" in (options or {}))
    folder = Path(args.output_dir or "")
    if not (args.output_dir and args.resume and (folder / "checkpoint.pth").is_file()):
        return
    begun = _read(folder / "config.yaml")
    if begun.get("model") == OURS:
        try:
            old = _resolved((begun.get("model_conf") or {}).get("gmot_conf"))
        except UserError:  # by a version that had other options
            return
        refuse_other_options(folder, (old, begun.get("train_data_path_and_name_and_type") or []), (config, streams))


def _resolved(options: Any) -> GMOTConfig:
    """The options of gmot_conf; of old names the model itself will speak."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return GMOTConfig.from_dict(options)

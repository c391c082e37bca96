"""What a comparison compares: systems, each a configuration with a teacher and options that overrule it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.files import read_mapping

#: Options that decide how much training a system gets and which of its epochs are used.
BUDGET: tuple[str, ...] = (
    "max_epoch",
    "num_iters_per_epoch",
    "batch_type",
    "batch_size",
    "batch_bins",
    "accum_grad",
    "patience",
)
BUDGET += ("optim", "optim_conf", "scheduler", "scheduler_conf", "keep_nbest_models", "best_model_criterion")
_GMOT = tuple(GMOTConfig.__dataclass_fields__)
_SYNTAX = "write NAME[=CONFIG][@TEACHER][:OPTION=VALUE,…], e.g. gmot-t@e5:w_ot=10,w_align=10"


@dataclass(frozen=True)
class System:
    """One system of a comparison.

    Attributes:
        name: what tables call it.
        config: its configuration.
        teacher: name of its teacher, or None if it has none.
        options: what overrules the configuration: ``w_ot`` (of gmot_conf), ``max_epoch``, ``encoder_conf.num_blocks``.
        settings: the configuration with the options in it.
    """

    name: str
    config: Path
    teacher: str | None
    options: tuple[tuple[str, str], ...]
    settings: Mapping[str, Any]

    @property
    def slug(self) -> str:
        """The name as part of a folder's."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", self.name)

    @property
    def gmot(self) -> GMOTConfig | None:
        """Its transfer; None for a stock model."""
        return _gmot(self.settings)

    @property
    def asr_args(self) -> str:
        """The options as asr_train's own."""
        words = []
        for key, value in self.options:
            if key in _GMOT:
                words.append(f"--model_conf gmot_conf.{key}={value}")
            else:
                name, _, inner = key.partition(".")
                words.append(f"--{name} {inner}={value}" if inner else f"--{name} {value}")
        return " ".join(words)


def parse_teachers(text: str) -> dict[str, str]:
    """Teachers by name from ``"e5=DIR adapted=DIR"``; a single word without ``=`` is called ``plm``.

    Raises:
        UserError: a word without a name, or a name given twice.
    """
    words = text.split()
    if len(words) == 1 and "=" not in words[0]:
        return {"plm": words[0]}
    teachers: dict[str, str] = {}
    for word in words:
        name, _, place = word.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not place or name in teachers:
            raise UserError(
                f'--teachers: {word!r}: write each as NAME=DIR, every name once, e.g. "e5=models/e5 my=plm"'
            )
        teachers[name] = place
    return teachers


def parse_systems(text: str, teachers: Sequence[str], prefix: str, recipe: Path) -> list[System]:
    """Systems from ``"ctc gmot-t@e5 w10=gmot-t@e5:w_ot=10,w_align=10"``.

    Args:
        text: the systems, separated by spaces.
        teachers: names of the teachers; a single one serves every system that needs one.
        prefix: a configuration's file is prefix + CONFIG + .yaml, unless CONFIG itself ends in .yaml.
        recipe: folder that such a file is also looked for in.

    Raises:
        UserError: bad syntax, an unknown configuration, option or teacher, or two systems of one name.
    """
    systems = [_parse(word, teachers, prefix, recipe) for word in text.split()]
    if not systems:
        raise UserError('--systems: name at least one, e.g. "ctc gmot-t"')
    for index, system in enumerate(systems):
        if other := next((other for other in systems[:index] if other.slug == system.slug), None):
            raise UserError(
                f"--systems: {other.name} and {system.name} would share a folder; name one NAME={system.name}"
            )
    return systems


def _parse(word: str, teachers: Sequence[str], prefix: str, recipe: Path) -> System:
    head, _, tail = word.partition(":")
    name, equals, what = head.partition("=")
    what, at, teacher = (what if equals else head).partition("@")
    name = name if equals else word
    if not name or not what or (at and not teacher) or any(character in word for character in "'\"\\"):
        raise UserError(f"--systems: {word!r}: {_SYNTAX}")
    options = []
    for option in re.split(r",(?![^\[]*\])", tail) if tail else []:  # no comma inside brackets
        key, _, value = option.partition("=")
        if not key or not value:
            raise UserError(f"--systems: {word!r}: {option!r} is no OPTION=VALUE; {_SYNTAX}")
        options.append((key, value))
    config = _find(what, prefix, recipe)
    settings = _overruled(config, options, word)
    gmot = _gmot(settings)
    needs = gmot is not None and gmot.transfers and gmot.teacher is None
    if teacher and not needs:
        raise UserError(f"--systems: {word!r}: takes no features of a teacher: leave @{teacher} out")
    if teacher and teacher not in teachers:
        raise UserError(f"--systems: {word!r}: no teacher {teacher!r} in --teachers ({', '.join(teachers) or 'none'})")
    if needs and not teacher:
        if len(teachers) != 1:
            raise UserError(
                f"--systems: {word!r}: needs a teacher: @NAME, one of --teachers ({', '.join(teachers) or 'none'})"
            )
        teacher = teachers[0]
    return System(name, config, teacher or None, tuple(options), settings)


def _find(what: str, prefix: str, recipe: Path) -> Path:
    name = what if what.endswith(".yaml") else f"{prefix}{what}.yaml"
    for path in (Path(name), recipe / name):
        if path.is_file():
            return path.resolve()
    raise UserError(f"--systems: {what!r}: {name}: no such configuration; see --config_prefix")


def _overruled(config: Path, options: Sequence[tuple[str, str]], word: str) -> dict[str, Any]:
    import yaml

    settings = read_mapping(config)
    for key, value in options:
        if key in _GMOT and settings.get("model") != "gmot":
            raise UserError(f"--systems: {word!r}: {key} is an option of model: gmot, which {config} isn't")
        *path, last = ["model_conf", "gmot_conf", key] if key in _GMOT else key.split(".")
        place = settings
        for step in path:
            if not isinstance(inner := place.get(step) or {}, dict):
                raise UserError(f"--systems: {word!r}: {key}: {step} is {inner!r} in {config}, which has no options")
            place[step] = dict(inner)
            place = place[step]
        try:
            place[last] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"--systems: {word!r}: {key}={value}: no YAML value; {_SYNTAX}") from error
    return settings


def _gmot(settings: Mapping[str, Any]) -> GMOTConfig | None:
    if settings.get("model") != "gmot":
        return None
    conf = settings.get("model_conf") or {}
    if not isinstance(conf, Mapping):
        raise UserError(f"model_conf: {conf!r}: give `option: value` lines")
    return GMOTConfig.from_dict(conf.get("gmot_conf"))


def check_budget(systems: Sequence[System], exempt: Sequence[str]) -> None:
    """Check that every system trains as long, in the same steps, as the first one.

    Args:
        systems: all of them.
        exempt: names of systems that may differ.

    Raises:
        UserError: one differs; names the option and both values.
    """
    names = [system.name for system in systems]
    if unknown := [name for name in exempt if name not in names]:
        raise UserError(f"--other_budget {unknown[0]}: no such system; there are {', '.join(names)}")
    bound = [system for system in systems if system.name not in exempt]
    for system in bound[1:]:
        for key in BUDGET:
            ours, theirs = bound[0].settings.get(key), system.settings.get(key)
            if ours != theirs:
                raise UserError(
                    f"--systems: {system.name} has {key}: {theirs}, {bound[0].name} has {ours}: give all the same, or "
                    f'name it in --other_budget "{system.name}"'
                )

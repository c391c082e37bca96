"""What a configuration knows of each of its options, kept in the field itself, and the check that follows from it."""

import dataclasses
import difflib
import math
import typing
from dataclasses import dataclass
from types import NoneType
from typing import Any

from espnet_gmot.errors import UserError


@dataclass(frozen=True)
class When:
    """The condition under which an option is read: another one has a certain value.

    Attributes:
        option: the other option's name.
        values: those that count; empty for anything but off (0, false, null).
    """

    option: str
    values: tuple[Any, ...] = ()

    def holds(self, config: Any) -> bool:
        """Whether a configuration reads the option."""
        value = getattr(config, self.option)
        return value in self.values if self.values else bool(value)

    def __str__(self) -> str:
        if not self.values:
            return f"where {self.option} is set"
        return f"with {self.option}: {' or '.join(map(written, self.values))}"


def option(
    default: Any,
    meaning: str,
    *,
    within: tuple[float, float] | None = None,
    choices: tuple[str, ...] | None = None,
    unit: str | None = None,
    read_only_if: When | None = None,
) -> Any:
    """A dataclass field that carries all that is known of an option, as its ``metadata``.

    Args:
        default: its value where nobody gives one.
        meaning: one or two sentences, for the reference and for errors.
        within: the least and the largest number allowed, both included; ``range`` in the metadata.
        choices: the words allowed.
        unit: what a number counts or is measured in.
        read_only_if: the condition without which it would be ignored; None where it always counts.
    """
    known = {"meaning": meaning, "range": within, "choices": choices, "unit": unit, "read_only_if": read_only_if}
    return dataclasses.field(default=default, metadata=known)


def checked(field: dataclasses.Field, value: Any) -> Any:
    """The value in the type of its field.

    Args:
        field: made by :func:`option`; annotated with bool, int, float or str, or a union of one with None or a list.
        value: what a user wrote.

    Raises:
        UserError: a wrong type, an unknown choice or a number out of range; names option, value and what is expected.
    """
    kinds = typing.get_args(field.type) or (field.type,)
    if value is None and NoneType in kinds:
        return None
    if choices := field.metadata["choices"]:
        if value not in choices:
            raise UserError(f"gmot_conf: {field.name}: unknown value '{value}'{closest(str(value), choices)}")
        return value
    if isinstance(value, list) and value and any(typing.get_origin(kind) is list for kind in kinds):
        return [_single(field, kinds, each, value) for each in value]
    return _single(field, kinds, value, value)


def _single(field: dataclasses.Field, kinds: tuple[Any, ...], value: Any, whole: Any) -> Any:
    """One value of a field, `whole` being what the user wrote."""
    if (bool in kinds and isinstance(value, bool)) or (str in kinds and isinstance(value, str)):
        return value
    numbers = {int, float} & set(kinds)
    if numbers and (number := _number(value)) is not None:
        low, high = field.metadata["range"] or (-math.inf, math.inf)
        if low <= number <= high and (float in numbers or number.is_integer()):
            return number if float in numbers else int(number)
    raise UserError(f"gmot_conf: {field.name}: got {whole!r}, expected {_expected(field, kinds)}")


def _expected(field: dataclasses.Field, kinds: tuple[Any, ...]) -> str:
    """What a field takes, in words."""
    words = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
    expected = next(text for kind, text in words.items() if kind in kinds)
    if field.metadata["range"]:
        expected += " in [{:g}, {:g}]".format(*field.metadata["range"])
    if any(typing.get_origin(kind) is list for kind in kinds):
        expected += " or a list of them"
    return f"{expected}: {field.metadata['meaning']}"


def _number(value: Any) -> float | None:
    """A number, also one that YAML 1.1 reads as text, as it does with `1e-3`: ESPnet's own options accept it, so do
    these; None for anything else, nan included."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


def written(value: Any) -> str:
    """A value as a user writes it in YAML."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def closest(word: str, words: list[str] | tuple[str, ...]) -> str:
    """A hint for a misspelt word: the closest known one, or all of them."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f": did you mean '{near[0]}'?" if near else f": known are {', '.join(words)}"

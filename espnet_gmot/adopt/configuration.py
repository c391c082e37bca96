"""A training configuration with the plugin written into it: the user's text, comments and all, and some lines more.

YAML libraries that keep comments still lay a file out anew. So the text itself is edited, at the places where PyYAML's
nodes begin; afterwards it must read as the old configuration with exactly the new keys, or nothing is written.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from espnet_gmot.errors import UserError

HOST = "espnet"
MARK = "added by `python3 -m espnet_gmot adopt`"


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """A configuration's text and content.

    Raises:
        UserError: the file is absent, or no YAML mapping.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give the recipe's training configuration") from error
    except (ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or no such day or number
        raise UserError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or text.lstrip().startswith("{"):
        raise UserError(f"{path}: no block of `key: value` lines: give the recipe's training configuration")
    return text, content


def adopted(path: Path, gmot_conf: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    """The text of a configuration with ``model: gmot``.

    Args:
        path: the user's configuration.
        gmot_conf: what goes below ``model_conf``.
        more: further top-level keys; a list's values go before those that the user's file has.

    Returns:
        The new text.

    Raises:
        UserError: the configuration is of another model, or has gmot_conf or init_param already.
    """
    text, old = read(path)
    if old.get("init_param") and "init_param" in more:
        raise UserError(f"{path}: init_param: {old['init_param']}: starts from another model already: leave --init out")
    if (model := old.get("model", HOST)) != HOST:
        fix = "it is adopted already" if model == "gmot" else f"GM-OT's host is model: {HOST}"
        raise UserError(f"{path}: model: {model}: {fix}: give the stock configuration")
    if not isinstance(old.get("model_conf") or {}, dict):
        raise UserError(f"{path}: model_conf: {old['model_conf']!r}: write its options below it, or remove it")
    if "gmot_conf" in (old.get("model_conf") or {}):
        raise UserError(f"{path}: model_conf has a gmot_conf already: give the stock configuration")
    wanted = {**old, "model": "gmot", "model_conf": {**(old.get("model_conf") or {}), "gmot_conf": dict(gmot_conf)}}
    for key, value in more.items():
        if isinstance(value, list) and not isinstance(old.get(key) or [], list):
            raise UserError(f"{path}: {key}: {old[key]!r}: write a list")
        wanted[key] = [*value, *(old.get(key) or [])] if isinstance(value, list) else value
    changes = {"model_conf": {"gmot_conf": dict(gmot_conf)}, "model": "gmot", **more}
    new = _edited(text, changes)
    with contextlib.suppress(yaml.YAMLError, ValueError):
        if yaml.safe_load(new) == wanted:
            return new
    raise UserError(f"{path}: its layout is beyond adopt: write it as a plain block of `key: value` lines")


def _compose(text: str) -> yaml.MappingNode:
    """The text's nodes; it is a mapping, as loading it has shown."""
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    return node


def _edited(text: str, changes: Mapping[str, Any]) -> str:
    """Put each key where the text has it, or at the end."""
    nodes = {key.value: (key, value) for key, value in _compose(text).value}
    edits: list[tuple[int, int, str]] = []
    end: list[str] = []
    for key, value in changes.items():
        if key in nodes:
            edits.append(_edit(text, *nodes[key], value))
        else:
            end.append(_block({key: value}))
    for start, stop, piece in sorted(edits, reverse=True):
        text = text[:start] + piece + text[stop:]
    newline = "\r\n" if "\r\n" in text else "\n"
    added = f"\n# {MARK}\n{''.join(end)}" if end else ""
    text = text if text.endswith("\n") or not text else text + newline
    return text + added.replace("\n", newline)


def _edit(text: str, key: yaml.Node, node: yaml.Node, value: Any) -> tuple[int, int, str]:
    """Where the text changes, and what stands there afterwards, so that a key's value gets ``value`` as well."""
    newline = "\r\n" if "\r\n" in text else "\n"
    collection = isinstance(value, (dict, list))
    if collection and isinstance(node, yaml.ScalarNode) and not node.value.strip("~nul"):  # nothing there yet
        stop = node.end_mark.index if node.value else key.end_mark.index + 1
        inner = newline + _indented(_block(value), " " * (key.start_mark.column + 4)).rstrip("\n")
        return (node.start_mark.index if node.value else stop), stop, inner.replace("\n", newline)
    if collection and isinstance(node, yaml.CollectionNode) and node.flow_style:
        inside = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()[1:-1]
        place = node.start_mark.index + 1
        return place, place, inside + (", " if node.value else "")
    if collection:  # a block: the new entries become its first ones
        place = node.start_mark.index - node.start_mark.column
        return place, place, _indented(_block(value), " " * node.start_mark.column).replace("\n", newline)
    return node.start_mark.index, node.end_mark.index, _scalar(value)


def _block(value: Any) -> str:
    """A mapping's or a list's lines, in ESPnet's own layout."""
    if isinstance(value, list):
        return "".join(f"-   {_scalar(item)}\n" for item in value)
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            note = f"  # {MARK}" if key == "gmot_conf" else ""
            lines.append(f"{key}:{note}\n{_indented(_block(item), '    ')}")
        elif isinstance(item, list) and item and isinstance(item[0], list):
            lines.append(f"{key}:\n{_block(item)}")
        else:
            lines.append(f"{key}: {_scalar(item)}\n")
    return "".join(lines)


def _indented(lines: str, space: str) -> str:
    return "".join(f"{space}{line}" for line in lines.splitlines(keepends=True))


def _scalar(value: Any) -> str:
    """A value on one line: a word, a number, a list."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).strip()
    return text.removesuffix("...").strip()

"""MkDocs hook: the reference pages, made from the code at every build, so that they can't differ from it."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "espnet_gmot"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, each with its next step."""
    for name, make, after in (
        ("options", options, "[what the options do, in pictures](../understand/knobs.md)"),
        ("commands", commands, "[errors](errors.md), or [questions](../questions.md)"),
        ("errors", errors, "[when it doesn't help](../howto_unhelpful.md)"),
    ):
        files.append(File.generated(config, f"reference/{name}.md", content=f"{make()}\n\nNext: {after}.\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository that are no pages become their names: the site doesn't hold them."""
    here = Path(config.docs_dir, page.file.src_uri).parent

    def name(link: re.Match[str]) -> str:
        """The link as it stands if the site holds its target, else the target's name."""
        target = (here / link[2]).resolve()
        if target.is_relative_to(config.docs_dir) or not target.exists():
            return link[0]  # a page, or a dead link, which strict mode reports
        return f"`{target.relative_to(ROOT)}`"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)\)", name, markdown)


def options() -> str:
    """Every option of gmot_conf, from its field, and what each preset sets."""
    from espnet_gmot.config import GMOTConfig
    from espnet_gmot.presets import PRESETS

    page = [
        "# Options: `gmot_conf`",
        "",
        "What stands under `model_conf: gmot_conf:`. An option that would be ignored is refused: see *read only*.",
        "",
        "| option | default | range or words | meaning | read only |",
        "|---|---|---|---|---|",
    ]
    for field in fields(GMOTConfig):
        known = field.metadata
        words = ", ".join(known["choices"] or ())
        allowed = words or (f"{known['range'][0]:g} to {known['range'][1]:g}" if known["range"] else "")
        meaning = known["meaning"] + (f" ({known['unit']})" if known["unit"] else "")
        row = (field.name, field.default, allowed, None, known["read_only_if"] or None)
        cells = [_cell("" if value is None else str(value)) for value in row]
        cells[3] = meaning.replace("|", "\\|")
        page.append(f"| {' | '.join(cells)} |")
    page += ["", "## Presets", "", "What each sets beside these defaults:", "", "| preset | settings |", "|---|---|"]
    for name, settings in PRESETS.items():
        page.append(f"| `{name}` | {_cell(', '.join(f'{key}: {value}' for key, value in settings.items()))} |")
    return "\n".join([*page, ""])


def commands() -> str:
    """Each command's own --help."""
    from espnet_gmot.launcher import COMMANDS

    os.environ["COLUMNS"] = "110"
    page = [
        "# Commands",
        "",
        "What each prints with `--help`. All of them: `python3 -m espnet_gmot COMMAND --help`.",
        "",
    ]
    for name, (module, what) in COMMANDS.items():
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            importlib.import_module(module).main(["--help"])
        page += [f"## {name}", "", f"{what[0].upper()}{what[1:]}.", "", "```text", shown.getvalue().rstrip(), "```", ""]
    return "\n".join(page)


def errors() -> str:
    """Every message of a UserError, as the code has it."""
    page = [
        "# Errors",
        "",
        "Every error that you can mend is one line: the file or option, the value, and after the last colon or",
        "semicolon what to do. `{…}` stands for what the message fills in; search this page for the rest. Anything",
        "else that ends in a traceback is a defect: please report it.",
        "",
    ]
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf8"))
        messages = list(dict.fromkeys(_messages(tree)))
        if messages:
            about = (ast.get_docstring(tree) or "").partition("\n")[0].replace("`", "'")
            name = path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")
            page += [f"## {name}", "", f"*{about}*", "", *(f"- {_cell(message)}" for message in messages), ""]
    return "\n".join(page)


def _messages(tree: ast.AST) -> Iterator[str]:
    """The text of each UserError that is made from a literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError" and node.args:
            text = _literal(node.args[0])
            if text.strip("{} "):
                yield text


def _literal(node: ast.expr) -> str:
    """A string expression as text, `{name}` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{" + ast.unparse(node.value) + "}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _literal(node.left) + _literal(node.right)
    return "{" + ast.unparse(node) + "}"


def _cell(text: str) -> str:
    """Text that a table's cell shows as it is."""
    return "`" + text.replace("|", "\\|").replace("`", "'").replace("\n", " ") + "`" if text else ""

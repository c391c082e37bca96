"""Every command line in the documentation names options that its program has."""

import contextlib
import functools
import importlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from espnet_gmot import launcher
from espnet_gmot.launcher import COMMANDS
from espnet_gmot.recipe.options import get_parser

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "egs2/aishell_gmot/asr1"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "conf/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def lines(page: Path) -> Iterator[str]:
    """Command lines of a page's shell blocks, continued ones joined."""
    for block in re.findall(r"```(?:sh|bash|shell|console)\n(.*?)```", page.read_text(encoding="utf8"), re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


def uses(line: str) -> Iterator[tuple[str, list[str]]]:
    """(program, options) of each of the project's programs that a line runs."""
    words = shlex.split(line, comments=True)
    for place, word in enumerate(words):
        if words[place - 2 : place] == ["-m", "espnet_gmot"] and word in COMMANDS:
            program = word
        elif re.fullmatch(r"(\S*/)?run(_\w+)?\.sh", word):
            program = Path(word).name
        else:
            continue
        after = words[place + 1 :]
        end = next((i for i, each in enumerate(after) if each in ("|", "&&", ";", ">")), len(after))
        yield program, [each.split("=")[0] for each in after[:end] if re.fullmatch(r"--\w+(=.*)?", each)]


@functools.cache
def options(program: str) -> set[str]:
    """What a program's --help names."""
    if program.endswith(".sh"):
        shown = subprocess.run(["bash", RECIPE / program, "--help"], capture_output=True, text=True, check=True).stdout
        asr_sh = {name for action in get_parser()._actions for name in action.option_strings}  # what run.sh hands on
        found = set(re.findall(r"--\w+", shown))
        if program == "run_comparison.sh":  # it hands on what isn't its own
            return found | options("run.sh")
        return found | (asr_sh if program == "run.sh" else set())
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        importlib.import_module(COMMANDS[program][0]).main(["--help"])
    return set(re.findall(r"--\w+", shown.getvalue()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_exist(page: Path) -> None:
    unknown = [
        f"{program} {option}: {line}"
        for line in lines(page)
        for program, given in uses(line)
        for option in given
        if option not in options(program)
    ]
    assert not unknown


def test_a_misspelt_option_is_found() -> None:
    line = "python3 -m espnet_gmot dump-teacher --model M --txet T  # not --this"
    [(program, given)] = uses(line)
    assert program == "dump-teacher" and given == ["--model", "--txet"]
    assert "--model" in options(program) and "--txet" not in options(program)


def test_two_dashes_alone_are_no_value(capsys: pytest.CaptureFixture) -> None:
    """argparse would hand an empty list to the command."""
    for command in COMMANDS:
        assert launcher.main([command, "--out=--"]) == 1
        assert "--out=--: two dashes alone are no value" in capsys.readouterr().err

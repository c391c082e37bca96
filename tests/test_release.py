"""What a release is made of agrees with itself: versions, changelog, citation, templates, checklist."""

import re
from pathlib import Path

import pytest
import yaml

from espnet_gmot.config import RENAMED, GMOTConfig
from espnet_gmot.version import __version__

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf8")
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


def test_the_changelog_is_kept() -> None:
    """Unreleased on top, then versions with dates, newest first; nothing but the six kinds of change in them."""
    titles = re.findall(r"^## (.*)$", CHANGELOG, re.M)
    assert titles[0] == "[Unreleased]"
    dated = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", title) for title in titles[1:]]
    assert all(dated)
    versions = [tuple(map(int, title.groups())) for title in dated if title]
    assert versions == sorted(versions, reverse=True)
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_line_of_the_changelog_stands_in_a_section() -> None:
    parts = re.split(r"^#{2,3} .*$", CHANGELOG, flags=re.M)
    assert not any(line.startswith("- ") for line in parts[0].splitlines() + parts[1].splitlines())
    twice = [line for line in CHANGELOG.splitlines() if line.startswith("### ")]
    unreleased = CHANGELOG.split("\n## ")[1]
    assert len(re.findall(r"^### ", unreleased, re.M)) == len(set(re.findall(r"^### .*$", unreleased, re.M))), twice


def test_the_citation_is_of_this_version() -> None:
    """Its schema is cffconvert's to check (docs/release.md); here, what a new version forgets."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    assert cited["version"] == __version__ and cited["license"] == "Apache-2.0" and cited["authors"]


def test_the_version_stands_in_one_place() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in [*ROOT.glob("*.cfg"), *ROOT.glob("*.toml"), *(ROOT / "espnet_gmot").rglob("*.py")]
        if re.search(rf'^(__)?version(__)?\s*=\s*"?{re.escape(__version__)}', path.read_text(encoding="utf8"), re.M)
    ]
    assert found == ["espnet_gmot/version.py"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_issue_template_is_a_form(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf8"))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form) and form["body"]
    names = [item["id"] for item in form["body"]]
    assert len(names) == len(set(names))
    for item in form["body"]:
        assert item["type"] in ("input", "textarea") and item["attributes"]["label"]


def test_there_are_templates() -> None:
    assert {path.stem for path in TEMPLATES} == {"bug", "config", "result", "wish"}
    assert "CHANGELOG.md" in (ROOT / ".github/PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf8")


def test_the_checklist_has_ten_lines() -> None:
    numbers = re.findall(r"^(\d+)\. ", (ROOT / "docs/release.md").read_text(encoding="utf8"), re.M)
    assert numbers == [str(number) for number in range(1, 11)]


def test_what_the_policy_gives_as_example_is_true() -> None:
    """An old name is read, with a warning that names the new one."""
    assert RENAMED["stack"] == "pool"
    with pytest.warns(FutureWarning, match="'stack' is now called 'pool'"):
        assert GMOTConfig.from_dict({"stack": 2}).pool == 2


def test_every_hash_is_of_the_pinned_version() -> None:
    """hashes.txt: what `make hashes` wrote for requirements.txt under constraints.txt, and ESPnet beside them."""
    lines = (ROOT / "hashes.txt").read_text(encoding="utf8").splitlines()
    assert lines[0].startswith("# Linux x86_64 CPython 3.11")
    hashed = dict(re.fullmatch(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}", line).groups() for line in lines[1:])
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf8").split())
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    found, wanted = ({_plain(name): version for name, version in each.items()} for each in (hashed, pins))
    asked = re.findall(r"^(?:TORCH|ESPNET|WHISPER) \?= (.*)$", makefile, re.M)
    last = {_plain(name): version for name, version in (word.split("==") for line in asked for word in line.split())}
    wanted |= last | {"torch": last["torch"] + "+cpu"}
    assert found.items() <= wanted.items()
    required = re.findall(r"^[A-Za-z][\w.-]*", (ROOT / "requirements.txt").read_text(encoding="utf8"), re.M)
    assert {_plain(name) for name in required} <= found.keys()


def _plain(name: str) -> str:
    """A package's name as indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()

"""The page of ``report --html``: what it says, and that a browser shows it without a word of complaint."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.report import cli
from espnet_gmot.report.align import Span, coupling_spans
from espnet_gmot.report.cer import Edit, written
from espnet_gmot.report.measure import Score, write_scores
from espnet_gmot.report.page import Page, _spelled
from espnet_gmot.report.pictures import Coupling
from espnet_gmot.report.scored import collect
from tests.report.chrome import Chrome

REFERENCE = {f"S{i // 10:03}-S{i // 10:03}W{i:03}": "今天他们去公园" for i in range(120)}
LOG = """# python3 -m espnet_gmot -m espnet2.bin.asr_train --config <conf>&.yaml
[vm] 2026-11-26 01:00:0{0},000 (trainer:311) INFO: {1}/2epoch started
[vm] 2026-11-26 01:00:0{2},500 (trainer:394) INFO: {1}epoch results: [train] loss_ctc=9.0, loss=9.5, \
time=1 minute and 2 seconds, total_count={3}, [valid] loss_ctc=8.{1}, cer_ctc=0.{4}, loss=8.5, \
loss_gmot=0.{4}, loss_wd=nan, time=1 second, total_count=2
"""


def experiment(folder: Path, wrong: int, said: str, name: str = "test") -> Path:
    """A scored experiment of two epochs whose first `wrong` sentences were heard as `said`."""
    score = folder / "decode" / name / "score_cer"
    score.mkdir(parents=True)
    heard = {key: said if index < wrong else text for index, (key, text) in enumerate(REFERENCE.items())}
    for name, texts in (("ref", REFERENCE), ("hyp", heard)):
        lines = [f"{' '.join(text)}\t({key})\n" for key, text in texts.items()]
        (score / f"{name}.trn").write_text("".join(lines))
    (folder / "train.log").write_text(LOG.format(1, 1, 3, 40, 9) + LOG.format(4, 2, 7, 80, 5))
    (folder / "RESULTS.md").write_text("- date: `Thu Nov 26`\n  - Commit date: ``\n- Git hash: `abc123`\n")
    return folder


def coupling(name: str) -> Coupling:
    """A drawn utterance of seven characters."""
    random = np.random.default_rng(0)
    plan, tokens = random.random((20, 7)) ** 4, list("今天他们去公园")
    edges = (random.random((20, 20)), random.random((7, 7)))
    truth = [Span(token, 0.2 * j, 0.2 * j + 0.2, 0.2 * j + 0.1, 1.0) for j, token in enumerate(tokens)]
    speech = random.standard_normal(22400).astype(np.float32)
    log_probs = np.log(random.dirichlet(np.ones(9), 20))
    return Coupling(
        system="gmot",
        utterance=name,
        text="".join(tokens),
        tokens=tokens,
        seconds=1.4,
        speech=speech,
        rate=16000,
        plan=plan,
        by_alpha={0.0: plan, 0.5: plan, 1.0: plan},
        path=coupling_spans(plan, tokens, 1.4),
        ctc=truth,
        truth=truth,
        log_probs=log_probs,
        edges=edges,
        before=edges,
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("page")
    exps, rows = {}, {}
    for name, wrong, said in (("ctc", 30, "今天她们公园园"), ("gmot<b>", 12, "今天她们去公园")):
        exps[name] = [experiment(folder / f"asr_{name}", wrong, said)]
        rows[name] = collect(name, exps[name][0], [], None)
    drawn = [coupling("first"), coupling("second")]
    made = Page("What & why", exps, rows, couplings=drawn, command=["report", "--html", "a b.html"])
    made.write(folder / "out.html")
    return folder / "out.html"


def rows_of(text: str) -> list[list[str]]:
    """Cells of all tables' rows."""
    return [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>.*?</tr>", text, flags=re.DOTALL)]


class Reader(HTMLParser):
    """Collects what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("href", "src", "xlink:href")]


def test_it_holds_everything_that_it_needs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    read = Reader(text)
    assert len(set(read.ids)) == len(read.ids)
    assert all(address.startswith(("#", "data:")) for address in read.addresses)
    assert all(address[1:] in read.ids for address in read.addresses if address.startswith("#"))
    assert not re.search(r"url\((?!['\"]?#)", text) and "<script" not in text and "@import" not in text
    assert all(match in read.ids for match in re.findall(r"url\(#([^)]+)\)", text))


def test_every_picture_has_a_text_and_says_what_to_look_for(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    figures = re.findall(r"<figure>.*?</figure>", text, flags=re.DOTALL)
    assert len(figures) == 1 + 3 + 2 * (1 + 3 + 2)
    for figure in figures:
        assert re.search(r'role="img" aria-label="[^"]{20,}"', figure)
        caption = re.sub("<.*?>", "", re.search(r"<figcaption>(.*?)</figcaption>", figure, flags=re.DOTALL)[1])
        assert len(caption.strip()) > 20 and caption.strip().endswith(".")
    assert "今" in figures[4] and "font-family: 'DejaVu" not in text  # labels are text, in the reader's fonts


def test_it_tells_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "What &amp; why" in text and "gmot&lt;b&gt;" in text and "<b></b>" not in text
    cells = rows_of(text)
    rates = {row[0]: row for row in cells if row[1:2] == ["test"] and len(row) > 6}
    # 30 sentences with 3 errors, 12 with one, of 120 sentences of 7 characters
    assert rates["ctc"][3] == f"{100 * 30 * 3 / 840:.2f}" and rates["ctc"][5:8] == ["", "", ""]
    assert rates["gmot&lt;b&gt;"][3] == f"{100 * 12 / 840:.2f}"
    assert rates["gmot&lt;b&gt;"][5] == f"{100 * (12 - 90) / 840:+.2f}" and float(rates["gmot&lt;b&gt;"][7]) > 0
    assert rates["ctc"][-1] == "speakers"
    homophones = {row[0]: row for row in cells if row[1:2] == ["test"] and len(row) == 5}
    assert homophones["gmot&lt;b&gt;"][2:] == ["12", "12", "100 %"]
    mark = '<mark class="homophone" title="homophone of 他">她<span class="said"> (homophone of 他)</span></mark>'
    assert mark in text and 'class="han" lang="zh"' in text
    assert "Git hash: abc123" in text and "--config &lt;conf&gt;&amp;.yaml" in text and "&#39;a b.html&#39;" in text


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all tests."""
    with Chrome(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


_CONTRAST = """
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(x => x / 255).map(
    x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const back = getComputedStyle(document.body).backgroundColor;
return [back, ...['p', 'figcaption', 'td', 'a', 'svg text'].map(name => {
    const style = getComputedStyle(document.querySelector('main ' + name) || document.querySelector(name));
    const both = [name == 'svg text' ? style.fill : style.color, back].map(light).sort((a, b) => b - a);
    return (both[0] + 0.05) / (both[1] + 0.05); })];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it_quietly(chrome: Chrome, page: Path, theme: str, width: int) -> None:
    chrome.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    chrome.cdp("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    chrome.requests(), chrome.log("browser")
    chrome.open(page.as_uri())
    asked = chrome.requests()
    assert page.as_uri() in asked and all(address.startswith(("file:", "data:")) for address in asked), asked
    assert chrome.log("browser") == []
    assert chrome.run("return document.documentElement.scrollWidth") <= width  # nothing but figures scrolls sideways
    back, *contrasts = chrome.run(_CONTRAST)
    assert (back == "rgb(255, 255, 255)") == (theme == "light")
    assert min(contrasts) >= 4.5, contrasts
    assert chrome.run("return [...document.images].every(image => image.naturalWidth > 0)")


def test_the_keyboard_reaches_everything(chrome: Chrome, page: Path) -> None:
    chrome.open(page.as_uri())
    for kind in ("keyDown", "keyUp"):
        chrome.cdp("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert chrome.run("return document.activeElement.className") == "skip"
    unreachable = """return [...document.querySelectorAll('.scroll, .row, pre, summary')].filter(
        each => each.scrollWidth > each.clientWidth && each.tabIndex < 0).length"""
    assert chrome.run(unreachable) == 0


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    exp = experiment(tmp_path / "asr", 3, "今天她们去公园")
    scores = [Score("asr", "ave.pth", "gmot-t", 10, 70, 74.5, 2.9, 69.9, 31.7, 75.7, 0.529)]
    write_scores(tmp_path / "alignment.csv", scores)
    words = ["--exp", f"ctc={exp}", "--html", str(tmp_path / "out.html"), "--alignment", f"{tmp_path}/alignment.csv"]
    assert cli.main(words) == 0
    assert str(tmp_path / "out.html") in capsys.readouterr().out
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<td>74 ± 3</td>" in text and "One training of each system" in text
    assert 'id="learning"' in text and 'id="couplings"' not in text
    with pytest.raises(UserError, match="--set and --utt go together"):
        cli.main([*words, "--utt", "a"])


def test_what_alpha_shows_depends_on_the_prior(page: Path, tmp_path: Path) -> None:
    drawn = replace(coupling("u"), prior=True)
    Page("", {}, {}, couplings=[drawn]).write(tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    told = "the prior of the order counts in all of these"
    assert told in text and "wherever it is" not in text and "the order alone makes the staircase" in text
    other = page.read_text(encoding="utf-8")
    assert told not in other and "wherever it is" in other


def test_other_languages_are_written_as_they_are(tmp_path: Path) -> None:
    """Without a word of pypinyin's, which ASCII doesn't need."""
    drawn = replace(coupling("u"), text=written(["<space>", "d", "o", "g"]))
    heard = [Edit("correct", 0, "a", "a"), Edit("deletion", 1, "<space>", ""), Edit("substitution", 2, "b", "c")]
    marked = [(mark, text) for mark, text, _ in _spelled(heard)]
    assert marked == [("correct", "a"), ("deletion", " "), ("substitution", "c")]
    Page("", {}, {}, couplings=[drawn]).write(tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert '<span class="han"> dog</span>' in text and 'lang="zh"' not in text
    assert written(["▁the", "▁do", "g"]) == " the dog"


def test_a_comparisons_csv_files_have_their_tests_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The same numbers as in the terminal, where errors by utterance are given."""
    folder = Path(__file__).parents[2] / "docs/results"
    words = ["--csv", f"{folder}/cv6.csv", "--utterances", f"{folder}/cv6_utterances.csv", "--baseline", "ctc6"]
    words += ["--sets", "test", "--resamples", "1000", "--blocks", "speaker", "--html", str(tmp_path / "out.html")]
    assert cli.main(words) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (shown,) = [line for line in lines if line[:2] == ["clock-adapted6*", "test"] and line[2].startswith("-")]
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "less ctc6&#39;s" in text and "apart-test" in text and "One training of" not in text
    (cells,) = [row for row in rows_of(text) if row[0] == "clock-adapted6*" and len(row) > 8]
    assert cells[5:8] == [shown[2], f"{shown[3]} to {shown[4]}", shown[5]] and cells[-1] == "speakers"


def test_only_systems_with_one_training_are_said_to_have_one(tmp_path: Path) -> None:
    exps = {"ctc": [experiment(tmp_path / f"ctc{seed}", 10 + seed, "今天她们去公园") for seed in range(2)]}
    exps["gmot"] = [experiment(tmp_path / "gmot", 9, "今天她们去公园")]
    rows = {name: [row for exp in each for row in collect(name, exp, [], None)] for name, each in exps.items()}
    Page("", exps, rows, resamples=100).write(tmp_path / "out.html")
    assert "One training of gmot:" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_a_single_utterance_has_no_standard_error(tmp_path: Path) -> None:
    score = Score("asr", "ave.pth", "gmot-t", 1, 7, 74.5, float("nan"), 69.9, 31.7, 75.7, 0.529)
    Page("", {}, {}, scores=[score]).write(tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<td>74</td>" in text and "± nan" not in text


def test_one_baseline_for_all_sets(tmp_path: Path) -> None:
    """The first system lacks a set; another is named as the baseline."""
    words = ["--partial", "--resamples", "1000", "--html", str(tmp_path / "out.html"), "--exp"]
    for system, wrong in (("ctc", 30), ("a", 12), ("b", 18)):
        for name in ("dev",) if system == "ctc" else ("dev", "test"):
            exp = experiment(tmp_path / system, wrong, "今天她们去公园", name)
        words.append(f"{system}={exp}")

    def shown(*more: str) -> tuple[list[str], dict[tuple[str, str], str]]:
        """The table's head and each system's difference."""
        cli.main([*words, *more])
        cells = [row for row in rows_of((tmp_path / "out.html").read_text(encoding="utf-8")) if len(row) > 6]
        return cells[0], {(row[0], row[1]): row[5] for row in cells[1:]}

    head, apart = shown()
    assert head[5] == "less ctc&#39;s"
    expected = {("a", "dev"): f"{100 * (12 - 30) / 840:+.2f}", ("b", "dev"): f"{100 * (18 - 30) / 840:+.2f}"}
    assert {key: value for key, value in apart.items() if value} == expected and len(apart) == 5
    head, apart = shown("--baseline", "a", "--blocks", "utterance")
    assert head[5] == "less a&#39;s"
    assert apart["b", "test"] == apart["b", "dev"] == f"{100 * 6 / 840:+.2f}" and not apart["a", "dev"]
    assert apart["ctc", "dev"] == f"{100 * 18 / 840:+.2f}"
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert {row[-1] for row in rows_of(text) if len(row) > 6 and row[1] in ("dev", "test")} == {"utterances"}

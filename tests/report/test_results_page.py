"""What the documentation shows of the experiments is what their CSV files say."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import scipy.stats

from espnet_gmot.report.results import write_results
from tests.report.test_doses import result

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs/results/draw.py"


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, over the files of a folder of its own: errors of two utterances, which make up each result."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("draw", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    cells = [("ctc", 0, 30), ("ctc", 1, 32), ("gmot-x10", 0, 10), ("gmot-x10", 1, 13)]
    write_results(tmp_path / "e.csv", [result(system, seed, errors, "test") for system, seed, errors in cells])
    lines = ["set,utterance,characters,ctc:0,ctc:1,gmot-x10:0,gmot-x10:1"]
    lines += [
        f"test,s-{index:02},50,{','.join(str(n // 20 + (index < n % 20)) for *_, n in cells)}" for index in range(20)
    ]
    (tmp_path / "e_utterances.csv").write_text("\n".join(lines) + "\n")
    return module


def test_pages_say_what_the_files_say() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_table_by_hand(draw: ModuleType) -> None:
    """3.0 and 3.2 %: mean 3.1, half a difference of 0.2 times t with one degree of freedom, 12.706.

    The difference's two seeds, -2.0 and -1.9: 0.05 times 12.706, and a little for the sentences.
    """
    lines = draw.Experiment("e").table({"ctc": "CTC", "gmot-x10": "ten"}).splitlines()
    assert lines[2] == "| CTC | 2 | 3.10 ± 1.27 |  |  |  |  |"
    cells = [cell.strip() for cell in lines[3].split("|")]
    assert cells[1:4] == ["ten", "2", "1.15 ± 1.91"] and cells[5] == "-2.0, -1.9"
    found = re.fullmatch(r"-1\.95 \((-\d\.\d\d) to (-\d\.\d\d)\)", cells[4])
    assert found is not None and [float(found[1]), float(found[2])] == pytest.approx([-2.59, -1.31], abs=0.05)
    assert float(cells[6]) == pytest.approx(scipy.stats.ttest_1samp([-2.0, -1.9], 0).pvalue, rel=0.1)
    # unpaired: a sum of two Student's variables of one degree of freedom is Cauchy's, as wide as both standard errors
    assert float(cells[7]) == pytest.approx(2 * scipy.stats.cauchy.sf(1.95 / (0.1 + 0.15)), rel=0.1)


def test_a_system_of_fewer_seeds_is_compared_with_these(draw: ModuleType, tmp_path: Path) -> None:
    for name, start in (("e.csv", "gmot-x10,0"), ("e_utterances.csv", "")):
        lines = (tmp_path / name).read_text().splitlines()
        kept = [line for line in lines if not (start and line.startswith(start))]
        if name == "e_utterances.csv":  # without the first seed's column
            kept = [",".join(cell for i, cell in enumerate(line.split(",")) if i != 5) for line in lines]
            kept[0] = kept[0].replace("gmot-x10:1", "gmot-x10:0")
        (tmp_path / name).write_text("\n".join(kept) + "\n")
    found = draw.Experiment("e").difference("gmot-x10", "ctc")
    assert found.each == pytest.approx([1.3 - 3.2]) and found.value == pytest.approx(-1.9)


def test_a_table_has_every_system(draw: ModuleType) -> None:
    for labels in ({"ctc": "CTC"}, {"ctc": "CTC", "gmot-x10": "ten", "gmot-x30": "thirty"}):
        with pytest.raises(SystemExit, match="no label, or no training, of gmot-x"):
            draw.Experiment("e").table(labels)


def test_what_does_not_fit_together_is_no_table(draw: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "e.csv"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("ctc,1")))
    with pytest.raises(SystemExit, match=r"e: 2 seeds of ctc on test by utterance, 1 in e\.csv"):
        draw.Experiment("e")


def test_only_what_stands_between_the_marks_changes(draw: ModuleType) -> None:
    page = "a\n<!-- results: x -->\nold\n<!-- end -->\nb\n<!-- results: y -->\n<!-- end -->\n"
    new = draw.fill(page, {"x": "1", "y": "2"})
    assert new == "a\n<!-- results: x -->\n1\n<!-- end -->\nb\n<!-- results: y -->\n2\n<!-- end -->\n"
    assert draw.fill(new, {"x": "1", "y": "2"}) == new

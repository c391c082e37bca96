"""The controls of run_dose.sh: teachers from which one thing has been taken away."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoTokenizer

from espnet_gmot.teacher.plm import PLMTeacher
from tests.teacher.conftest import TEXT

RECIPE = Path(__file__).resolve().parents[2] / "egs2/aishell_gmot/asr1"


@pytest.fixture
def bert(tiny_plm: Path, tmp_path: Path) -> Path:
    """A character BERT with the vocabulary as a list, as `pretrain-plm` writes it."""
    folder = shutil.copytree(tiny_plm, tmp_path / "bert")
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    (folder / "vocab.txt").write_text(
        "".join(f"{t}\n" for t in sorted(vocabulary, key=vocabulary.get)), encoding="utf8"
    )
    return folder


def script(name: str) -> ModuleType:
    """A script of the recipe's local/ as a module."""
    spec = importlib.util.spec_from_file_location(name, RECIPE / f"local/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_blank_teacher_knows_places_alone(bert: Path, tmp_path: Path) -> None:
    script("blank_teacher").blank(bert, tmp_path / "blank")
    before, after = (PLMTeacher(str(folder)) for folder in (bert, tmp_path / "blank"))
    texts = ["今天很好", "天气很好"]
    (one, other), _ = after(texts)
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one[0], one[1], atol=1e-3)  # places differ
    (one, other), _ = before(texts)
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_permuted_teacher_reads_other_characters(bert: Path, tmp_path: Path) -> None:
    script("permute_teacher").permute(bert, tmp_path / "permuted", seed=1)
    before, after = (PLMTeacher(str(folder)) for folder in (bert, tmp_path / "permuted"))
    (known,), (changed,) = before(["今天很好"])[0], after(["今天很好"])[0]
    assert not torch.allclose(known, changed, atol=1e-3)
    tokens = sorted(set("".join(TEXT)))
    rows = [
        {tuple(row.round(decimals=3).tolist()) for (row,) in (each([c])[0][0] for c in tokens)}
        for each in (before, after)
    ]
    assert rows[0] == rows[1]  # the same features, of other characters

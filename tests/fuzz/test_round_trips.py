"""What is written is read back as it was, whatever the names and texts."""

import itertools
import os
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from espnet_gmot.config import PRESETS, GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.ctm import Timed, read_ctm, write_ctm
from espnet_gmot.kaldi.tables import clean_text, read_table, write_table
from espnet_gmot.kaldi.wav import perturbed_source
from espnet_gmot.recipe.audio import file_name
from espnet_gmot.recipe.score import write_trn_file
from espnet_gmot.recipe.speed import _pipe
from espnet_gmot.report.align import Span
from espnet_gmot.report.cer import read_trn
from espnet_gmot.report.textgrid import textgrid

EXAMPLES = int(os.environ.get("GMOT_FUZZ_EXAMPLES", "0"))
tried = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
# words of a table: what a transcript is after cleaning
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(lambda t: clean_text(t).replace(" ", ""))
WORD = WORDS.filter(lambda word: word and not word.startswith(";;"))
LINE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(clean_text)


@tried
@given(st.dictionaries(WORD, LINE, min_size=1, max_size=5))
def test_tables(table: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_table(f"{folder}/t", table)
        assert read_table(f"{folder}/t") == dict(sorted(table.items()))


@tried
@given(st.dictionaries(WORD, st.lists(WORD, max_size=4), min_size=1, max_size=4), WORD)
def test_trn(texts: dict[str, list[str]], speaker: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ref.trn")
        joined = {key: " ".join(tokens) for key, tokens in texts.items()}
        assume(len({key.translate(str.maketrans("()", "[]")) for key in texts}) == len(texts))
        write_trn_file(path, joined, dict.fromkeys(texts, speaker), str.split)
        found = read_trn(path)
    assert sorted(map(len, found.values())) == sorted(map(len, texts.values()))
    assert all(f"{speaker}-{key}".translate(str.maketrans("()", "[]")) in found for key in texts)


@tried
@given(st.lists(st.tuples(WORD, st.floats(0, 1e4), st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=5), WORD)
def test_ctm(tokens: list[tuple[str, float, float, float]], key: str) -> None:
    spoken = sorted((Timed(*token) for token in tokens), key=lambda token: round(token.start, 3))
    with tempfile.TemporaryDirectory() as folder:
        write_ctm(f"{folder}/t.ctm", {key: spoken})
        (found,) = read_ctm(f"{folder}/t.ctm").values()
    assert [token.token for token in found] == [token.token for token in spoken]
    for mine, theirs in zip(found, spoken, strict=True):
        assert mine[1:] == pytest.approx(theirs[1:], abs=6e-4)


@tried
@example([("", 1.3055906745712031), ("", 1.3055906745712031), ("", 1.0)], 5.96e-08)  # found: a gap of less than a digit
@given(st.lists(st.tuples(LINE, st.floats(1e-3, 2)), max_size=5), st.floats(0, 1))
def test_textgrid(labels: list[tuple[str, float]], gap: float) -> None:
    spans, time = [], 0.0
    for label, length in labels:
        time += gap
        spans.append(Span(label, time, time + length, time, 1.0))
        time += length
    text = textgrid({'a "tier"': spans}, time + gap + 1e-3)
    found = re.findall(r'xmin = ([\d.]+)\n +xmax = ([\d.]+)\n +text = "((?:[^"]|"")*)"\n', text)
    assert [label.replace('""', '"') for _, _, label in found if label] == [label for label, _ in labels if label]
    assert float(found[0][0]) == 0 and all(a[1] == b[0] for a, b in itertools.pairwise(found))


@tried
@given(LINE.filter(bool))
def test_paths_in_speed_pipes(path: str) -> None:
    assume(not path.endswith("|") and not re.search(r":[0-9]+$", path))
    pipe = _pipe(path, "0.9")
    assert perturbed_source(pipe) == (path, 0.9)
    assert shlex.split(pipe)[1] == path  # one word for the shell of asr.sh's stage 3


@tried
@given(WORD, WORD)
def test_names_of_files(one: str, other: str) -> None:
    assert "/" not in file_name(one) and not file_name(one).startswith(".")
    assert (file_name(one) == file_name(other)) is (one == other)


_VALUES = st.none() | st.booleans() | st.integers(-3, 10) | st.floats(-2, 10) | st.sampled_from(["1e-3", "linear", "x"])


@tried
@given(
    st.sampled_from(list(PRESETS)),
    st.dictionaries(st.sampled_from(sorted(GMOTConfig.__dataclass_fields__)), _VALUES | st.lists(_VALUES), max_size=3),
)
def test_gmot_conf(preset: str, options: dict[str, Any]) -> None:
    try:
        config = GMOTConfig.from_dict({**options, "preset": preset})
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert GMOTConfig.from_dict(config.to_dict()) == config

"""trn files: sclite and plain edit distance must read the same from them, whatever the transcripts hold."""

from pathlib import Path

import pytest

from espnet_gmot.recipe.score import find_sclite, score_folder, write_trn_file
from espnet_gmot.report.cer import count_trn, read_result, read_trn

ODD = [
    "{",
    "}",
    "b{",
    "{ b / c }",
    "@",
    "a@b",
    ";",
    ";; y",
    ";b",
    "/",
    "(x",
    "(x)",
    "*",
    "***",
    "-",
    '"',
    "#",
    "<unk>",
    "|",
]


def write(folder: Path, reference: str, hypothesis: str, key: str = "u") -> None:
    """Two utterances, one of which is recognised."""
    speakers = {key: "s", "v": "t"}
    for name, text in (("ref.trn", reference), ("hyp.trn", hypothesis)):
        write_trn_file(folder / name, {key: text, "v": "q q q q"}, speakers, str.split)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "texts", [("{} a", "{} b"), ("a {} b", "a b"), ("a b", "a {} b"), ("{} a", "b {} a"), ("a {}", "a x")]
)
def test_odd_tokens_are_counted_like_any(tmp_path: Path, odd: str, texts: tuple[str, str]) -> None:
    reference, hypothesis = (text.replace("{}", odd) for text in texts)
    write(tmp_path, reference, hypothesis)
    counts = count_trn(tmp_path)
    plain = " ".join(f"w{number}" for number, _ in enumerate(odd.split()))
    write(tmp_path / "plain", *(text.replace("{}", plain) for text in texts))
    assert counts == count_trn(tmp_path / "plain")
    if find_sclite():
        score_folder(tmp_path)
        assert read_result(tmp_path / "result.txt") == counts


@pytest.mark.parametrize("key", ["u(1)", "u(1", "(u)", "a/b", "u:1", "u{1}"])
def test_odd_ids(tmp_path: Path, key: str) -> None:
    write(tmp_path, "a b", "a c", key)
    assert len(read_trn(tmp_path / "ref.trn")) == 2
    if find_sclite():
        score_folder(tmp_path)
        assert read_result(tmp_path / "result.txt") == count_trn(tmp_path)

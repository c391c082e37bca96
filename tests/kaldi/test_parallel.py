"""A function over a table in several processes: as in one, in the table's order, and an end where one is killed."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.leaks import shared_recordings
from espnet_gmot.kaldi.parallel import each, in_chunks


def halve(entry: str) -> float:
    """What the processes compute; every seventh entry is bad."""
    if int(entry) % 7 == 0:
        raise UserError(f"{entry}: a multiple of seven")
    return int(entry) / 2


def die(entry: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return entry


def test_several_processes_give_what_one_gives() -> None:
    table = {f"u{index}": str(index) for index in range(2600, 0, -1)}
    good, bad = each(halve, table, 2, "halve")
    assert (good, bad) == each(halve, table, 1, "halve")
    assert list(good) == [key for key in table if key not in bad] and len(bad) == 371
    assert bad["u7"] == "7: a multiple of seven"


def test_a_killed_process_ends_the_work() -> None:
    with pytest.raises(UserError, match="was ended from outside"):
        each(die, {str(index): "x" for index in range(2001)}, 2, "die")


def test_many_files_alike_are_read_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one size and one middle, as of silence: pairs of them would take hours for a corpus."""
    from espnet_gmot.kaldi import leaks

    def write(name: str, count: int) -> dict[str, str]:
        paths = {f"{name}{index}": tmp_path / f"{name}{index}.wav" for index in range(count)}
        for key, path in paths.items():
            path.write_bytes(key.encode().ljust(20) + b"\0" * 20_000)
        return {key: str(path) for key, path in paths.items()}

    first, second = write("a", 30), write("b", 30)
    Path(second["b3"]).write_bytes(Path(first["a7"]).read_bytes())
    read: list[Path] = []
    digest = leaks.sha256
    monkeypatch.setattr(leaks, "sha256", lambda path: (read.append(path), digest(path))[1])
    assert shared_recordings(first, second) == [("a7", "b3")]
    assert len(read) == 60


def spell(mark: str, items: list[tuple[str, tuple[int, str]]]) -> list[str]:
    return [f"{key}{mark}{number}{letter}" for key, (number, letter) in items]


def test_chunks_in_several_processes_are_those_of_one() -> None:
    table = {f"u{index}": (index, chr(97 + index % 26)) for index in range(1300, 0, -1)}
    parts = list(in_chunks(partial(spell, "-"), table, 2, 100))
    assert parts == list(in_chunks(partial(spell, "-"), table, 1))
    assert [len(part) for part in parts] == [500, 500, 300] and parts[0][:2] == ["u1300-1300a", "u1299-1299z"]


def test_many_sentences_are_counted_and_scored_as_few_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, trn files and error counts, by one process and by several."""
    pytest.importorskip("espnet2")
    from espnet_gmot.recipe import score, token_list
    from espnet_gmot.recipe.layout import Layout
    from espnet_gmot.recipe.options import parse

    monkeypatch.chdir(tmp_path)
    texts = {f"u{index:04d}": "甲乙丙"[: index % 4] + "丁 a@b" * (index % 2) for index in range(1100)}
    said = {key: text.replace("乙", "已") + "戊" * (key[-1] == "7") for key, text in texts.items()}
    lines = "".join(f"{key} {text}\n" for key, text in texts.items())
    options = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test", "--token_type", "char", "--lang"]
    layout = Layout(parse([*options, "zh", "--feats_type", "raw"]))
    write_text(layout.dump / "lm_train.txt", lines)
    made = []
    for processes in (1, 2):
        for module in (token_list, score):
            monkeypatch.setattr(module, "cores", lambda processes=processes: processes)
            monkeypatch.setattr(module, "LIGHT", 100)
        token_list.make_token_list(layout)
        split = token_list.tokenizer(layout, "char", "none", scoring=True)
        for name, table in (("ref.trn", texts), ("hyp.trn", said)):
            score.write_trn_file(tmp_path / name, table, dict.fromkeys(texts, "s"), split)
        files = [layout.token_list, tmp_path / "ref.trn", tmp_path / "hyp.trn"]
        made.append([file.read_text("utf8") for file in files] + [score.result_without_sclite(tmp_path)])
    assert made[0] == made[1]
    assert made[0][0].split("\n")[:3] == ["<blank>", "<unk>", "甲"] and "1100" in made[0][3]

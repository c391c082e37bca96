"""prepare-data: from an archive or a tree to data/{train,dev,test}, and what it says about bad ones."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from espnet_gmot.corpora import aishell as corpora
from espnet_gmot.corpora.aishell import locate, main, thin
from espnet_gmot.corpora.unpack import unpack
from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.tables import read_table
from espnet_gmot.marks import digest_of
from tests.recipe.corpus import TRANSCRIPT, utterances, wav_bytes, write_corpus

COUNTS = {"train": 3, "dev": 1, "test": 2}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, without the environment's corpus."""
    for name in ("AISHELL", "AISHELL_URL", "GMOT_MAX_UTTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tree(place: Path) -> Path:
    """The unpacked corpus."""
    return unpack(write_corpus(place, COUNTS), place)


def test_archive_to_data(place: Path) -> None:
    main(["--data", str(write_corpus(place, COUNTS))])
    made = utterances(COUNTS)
    for split in COUNTS:
        mine = {key: value for key, value in made.items() if value[0] == split}
        assert read_table(f"data/{split}/text") == {key: text for key, (_, _, text) in mine.items()}
        assert read_table(f"data/{split}/utt2spk") == {key: speaker for key, (_, speaker, _) in mine.items()}
        for key, path in read_table(f"data/{split}/wav.scp").items():
            assert Path(path).read_bytes() == wav_bytes(mine[key][2])
        lines = Path(f"data/{split}/wav.scp").read_bytes().splitlines()
        assert lines == sorted(lines)
    assert read_table("data/test/spk2utt") == {
        speaker: " ".join(sorted(key for key, value in made.items() if value[1] == speaker))
        for speaker in ("S21", "S22")
    }


def test_rerun_unpacks_and_writes_nothing(place: Path) -> None:
    path = write_corpus(place, COUNTS)
    main(["--data", str(path)])
    before = {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()}
    main(["--data", str(path)])
    assert before == {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()}


def test_missing_recordings_and_transcripts(tree: Path) -> None:
    for path in sorted(tree.rglob("BAC009S01W*.wav"))[:2]:
        path.unlink()
    with pytest.raises(UserError, match=r"recordings of 2 transcripts \(BAC009S01W0000, BAC009S01W0001\) are missing"):
        main(["--data", str(tree)])
    main(["--data", str(tree), "--missing", "drop"])
    assert len(read_table("data/train/text")) == 4
    lines = (tree / "transcript" / Path(TRANSCRIPT).name).read_text().splitlines(keepends=True)
    (tree / "transcript" / Path(TRANSCRIPT).name).write_text("".join(line for line in lines if "S22W" not in line))
    with pytest.raises(UserError, match=r"recordings of 2 transcripts"):
        main(["--data", str(tree)])
    shutil.rmtree(tree / "wav/train/S01")
    (tree / "transcript" / Path(TRANSCRIPT).name).write_text(
        "".join(x for x in lines if "S22W" not in x and "S01" not in x)
    )
    with pytest.raises(UserError, match=r"transcripts of 2 recordings \(BAC009S22W0000, BAC009S22W0001\) are missing"):
        main(["--data", str(tree)])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("BAC009S01W0000", r"1 of 12 utterances have no transcript, the first is BAC009S01W0000"),
        ("BAC009S01W0001 一 二\nBAC009S01W0000 一", r":3: BAC009S01W0001 is already on line 1"),
    ],
)
def test_empty_and_duplicate_transcripts(tree: Path, line: str, message: str) -> None:
    path = tree / "transcript" / Path(TRANSCRIPT).name
    path.write_text(re.sub(r"BAC009S01W0000 .*", line, path.read_text()))
    with pytest.raises(UserError, match=message):
        main(["--data", str(tree)])


def test_truncated_wav(tree: Path) -> None:
    first, second = sorted(tree.rglob("BAC009S01W*.wav"))[:2]
    first.write_bytes(first.read_bytes()[:-100])
    second.write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"2 of 6 .* BAC009S01W0000: .*wav: truncated, \d+ of \d+ bytes.*--max_bad 2"):
        main(["--data", str(tree)])
    main(["--data", str(tree), "--max_bad", "2"])
    assert len(read_table("data/train/wav.scp")) == len(read_table("data/train/text")) == 4
    assert list(read_table("data/train/bad_utterances")) == ["BAC009S01W0000", "BAC009S01W0001"]
    next(tree.glob("wav/test/*/*.wav")).write_bytes(b"")
    with pytest.raises(UserError, match=r"data/test/bad_utterances: 1 of 4 .*; a test set must be whole"):
        main(["--data", str(tree), "--max_bad", "2"])


def test_sidecars_and_upper_case(tree: Path) -> None:
    for path in sorted(tree.rglob("BAC009S01W*.wav")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\x05\x16\x07 a macOS sidecar")
        path.rename(path.with_suffix(".WAV"))
    main(["--data", str(tree)])
    wavs = read_table("data/train/wav.scp")
    assert len(wavs) == 6 and wavs["BAC009S01W0000"].endswith("BAC009S01W0000.WAV")


def test_recordings_in_two_splits(tree: Path) -> None:
    train, test = next(tree.glob("wav/train/*/*.wav")), next(tree.glob("wav/test/*/*.wav"))
    shutil.copy(train, test)
    message = rf"^test: 1 of 4 recordings are also in train, the first is {test.stem} \({train.stem} there\)"
    with pytest.raises(UserError, match=message):
        main(["--data", str(tree)])


def test_max_utts_spreads_over_speakers(tree: Path) -> None:
    main(["--data", str(tree.parent), "--max_utts", "2"])
    assert set(read_table("data/train/utt2spk").values()) == {"S01", "S02"}
    assert [len(read_table(f"data/{split}/text")) for split in COUNTS] == [2, 2, 2]
    paths = {f"u{index}": Path() for index in range(10)}
    assert list(thin(paths, 3)) == ["u0", "u3", "u6"]


def test_a_tree_beside_its_archive_is_taken_as_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared folder that holds both, unpacked by hand: nothing is written there, --data_url fetches nothing."""
    archive = write_corpus(place, COUNTS)
    corpus = unpack(archive, place)
    (corpus / ".complete").unlink()
    monkeypatch.setattr(corpora, "unpack", lambda *_: pytest.fail("unpacked once more"))
    before = sorted(place.rglob("*"))
    assert locate(place) == locate(corpus) == locate(place, place / "other") == corpus
    corpora.fetch("http://127.0.0.1:9/none", place, None, None)
    assert sorted(place.rglob("*")) == before


def test_trees_that_are_not_whole_are_unpacked(place: Path) -> None:
    archive = write_corpus(place, COUNTS)
    corpus = unpack(archive, place)
    (corpus / ".complete").rename(place / "mark")
    (corpus / ".unpacked").mkdir()  # an interrupted unpacking of ours
    next(corpus.rglob("*.wav")).unlink()
    assert locate(place) == corpus and len(list(corpus.rglob("*.wav"))) == 12
    (corpus / ".complete").unlink()
    (corpus / ".unpacked").mkdir()
    archive.rename(place / "elsewhere.tgz")
    with pytest.raises(UserError, match=r"data_aishell: half unpacked: give its archive once more"):
        locate(place)
    (place / "elsewhere.tgz").rename(archive)
    shutil.rmtree(corpus)
    (corpus / "wav").mkdir(parents=True)  # the outer archive alone, by hand
    (corpus / "wav/S01.tar.gz").touch()
    assert locate(place, place / "mine") == place / "mine/data_aishell"
    assert [path.name for path in corpus.rglob("*")] == ["wav", "S01.tar.gz"]
    assert len(list((place / "mine").rglob("*.wav"))) == 12


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_named(place: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    archive = write_corpus(place, COUNTS)

    def refuse(path: Path, **_: bool) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        UserError, match=rf"{place}.*: cannot be written \({os.strerror(code)}\); give another --unpack_to"
    ):
        locate(place)
    monkeypatch.undo()

    def unreadable(*_: object) -> None:
        raise OSError(code, os.strerror(code), str(archive))

    monkeypatch.setattr(Path, "open", unreadable)
    with pytest.raises(UserError, match=rf"\.tgz: cannot be read \({os.strerror(code)}\)"):
        locate(place)


def test_nothing_there(place: Path) -> None:
    with pytest.raises(UserError, match="--data nowhere: no such file or folder"):
        main(["--data", "nowhere"])
    with pytest.raises(UserError, match=r"holds neither data_aishell/wav nor data_aishell\.tgz"):
        main(["--data", str(place)])


def test_frontend_features_of_every_set(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump_frontend = pytest.importorskip("espnet_gmot.speech.dump")
    calls = []

    def dump(argv: list[str]) -> None:
        calls.append(argv)
        out = Path(argv[argv.index("--out") + 1])
        out.mkdir(parents=True)
        (out / "feats.scp").write_text(f"{out} x.ark:1\n")

    monkeypatch.setattr(dump_frontend, "main", dump)
    options = ["--frontend_model", "m", "--frontend_layer", "4", "--frontend_opts", "--device cpu"]
    main(["--data", str(tree), *options])
    assert calls[2] == [
        "--model", "m", "--wav_scp", "data/test/wav.scp", "--out", "data/test/frontend",
        "--layer", "4", "--device", "cpu",
    ]  # fmt: skip
    assert Path("data/dev/feats.scp").read_text() == "data/dev/frontend x.ark:1\n"


def test_fingerprint_knows_content_from_time(place: Path) -> None:
    path = place / "x"
    path.write_text("a")
    by_content, by_time = (digest_of(["c"], [path], contents=contents) for contents in (True, False))
    os.utime(path, (1, 1))
    assert digest_of(["c"], [path], contents=True) == by_content
    assert digest_of(["c"], [path]) != by_time
    path.write_text("b")
    assert digest_of(["c"], [path], contents=True) != by_content

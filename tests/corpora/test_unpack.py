"""Archives of the corpus: the forms that are unpacked, and what is said of damaged, unsafe and foreign ones."""

import bz2
import gzip
import io
import lzma
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from espnet_gmot.corpora import unpack as archive_module
from espnet_gmot.corpora.unpack import unpack
from espnet_gmot.errors import UserError
from tests.recipe.corpus import corpus_files, tgz, write_corpus

COUNTS = {"train": 3, "dev": 1, "test": 2}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    """Content by path below a folder, without marks."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def dotted(files: dict[str, bytes], pack: Callable[[bytes], bytes] = lambda data: data) -> bytes:
    """What `tar -C FOLDER .` writes: every name begins with ./, and the folder itself is a member; inner ones alike."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as output:
        root = tarfile.TarInfo(".")
        root.type = tarfile.DIRTYPE
        output.addfile(root)
        for name, data in files.items():
            if name.endswith(".tar.gz"):
                with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                    members = {member.name: inner.extractfile(member).read() for member in inner if member.isfile()}
                data = dotted(members, gzip.compress)
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            output.addfile(member, io.BytesIO(data))
    return pack(stream.getvalue())


FILES = corpus_files(COUNTS)
INSIDE = {name.removeprefix("data_aishell/"): data for name, data in FILES.items()}
SIDECARS = {"data_aishell/._wav": b"x", "data_aishell/wav/._S01.tar.gz": b"no archive", "._data_aishell": b"x"}
FORMS = {
    "as distributed": tgz(FILES),
    "-C FOLDER .": dotted(FILES, gzip.compress),
    "-C FOLDER/data_aishell .": dotted(INSIDE, gzip.compress),
    "plain": dotted(FILES),
    "bzip2": dotted(FILES, bz2.compress),
    "xz": dotted(FILES, lzma.compress),
    "with sidecars": tgz(FILES | SIDECARS),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_the_same_tree(place: Path, form: bytes) -> None:
    (place / "x.tgz").write_bytes(form)
    expected = tree(unpack(write_corpus(place, COUNTS), place / "expected"))
    assert len(expected) == 13
    assert tree(unpack(place / "x.tgz", place / "in")) == expected


def test_bombs_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_SMALL", 3 << 20)
    monkeypatch.setattr(archive_module, "_MOST_RATIO", 2)
    (place / "x.tgz").write_bytes(tgz({f"data_aishell/wav/{number}.wav": bytes(1 << 20) for number in range(5)}))
    with pytest.raises(UserError, match=r"x\.tgz: holds more than .* 2 times its own size; this is no corpus"):
        unpack(place / "x.tgz", place / "in")
    assert sum(len(data) for data in tree(place / "in").values()) == 3 << 20
    monkeypatch.setattr(archive_module, "_MOST_MEMBERS", 10)
    with pytest.raises(UserError, match=r"holds more than 10 members"):
        unpack(write_corpus(place, COUNTS), place)


@pytest.mark.parametrize("form", ["as distributed", "plain", "xz"])
def test_wherever_it_is_cut(place: Path, form: str) -> None:
    data = FORMS[form]
    for cut in range(
        600, len(data) - (10300 if form == "plain" else 20), max(1, len(data) // 25)
    ):  # before the end marks and their padding
        (place / "x.tgz").write_bytes(data[:cut])
        with pytest.raises(UserError, match="cut short or damaged"):
            unpack(place / "x.tgz", place / str(cut))


def zipped() -> bytes:
    """The corpus as a zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as output:
        for name, data in FILES.items():
            output.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tgz(FILES)[:-2000], r"cut short or damaged, \d+ bytes are there, .*fetch it again, then rerun to continue"),
        (tgz(FILES)[:1000], r"cut short or damaged, 1000 bytes"),
        (dotted(FILES)[:9000], r"cut short or damaged, 9000 bytes"),
        (dotted(FILES, lzma.compress)[:2000], r"cut short or damaged, 2000 bytes"),
        (gzip.compress(b"no tar", mtime=0), r"cut short or damaged, 26 bytes are there, or no tar in it"),
        (zipped(), r"a zip archive; unzip it and give the folder"),
        (b"<html>not found</html>", r"a web page, not an archive; fetch it again"),
        (b"7z\xbc\xaf\x27\x1c", r"a 7z archive"),
        (b"RIFF....WAVE", r"not a tar archive; give data_aishell\.tgz"),
        (b"", r"not a tar archive"),
        (tgz({"other/wav/a.wav": b"x"}), r"member 'other/wav/a\.wav' is not below data_aishell/"),
    ],
)
def test_what_is_no_corpus_is_named(place: Path, data: bytes, message: str) -> None:
    (place / "x.tgz").write_bytes(data)
    with pytest.raises(UserError, match=rf"x\.tgz: {message}") as error:
        unpack(place / "x.tgz", place / "in")
    assert "\n" not in str(error.value)


def test_interrupted_unpacking_continues(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = write_corpus(place, COUNTS), []
    whole = archive_module._unpack_inner

    def stop_at_fourth(*args: object) -> None:
        if len(seen) == 3:
            raise OSError(28, "No space left on device")
        seen.append(args[2])
        whole(*args)

    monkeypatch.setattr(archive_module, "_unpack_inner", stop_at_fourth)
    with pytest.raises(UserError, match=r"no space left on the disk.*run the same command to continue"):
        unpack(path, place)
    monkeypatch.setattr(archive_module, "_unpack_inner", lambda *args: (seen.append(args[2]), whole(*args)))
    unpack(path, place)
    assert len(seen) == len(set(seen)) == 6  # every speaker once
    assert len(list(place.rglob("*.wav"))) == 12


@pytest.mark.parametrize("name", ["/tmp/evil.wav", "data_aishell/../../evil.wav"])
def test_outer_path_traversal(place: Path, name: str) -> None:
    path = place / "data_aishell.tgz"
    path.write_bytes(tgz({name: b"x"}))
    with pytest.raises(UserError, match=re.escape(repr(name))):
        unpack(path, place / "in")
    assert [file for file in place.rglob("*") if file.is_file()] == [path]


def test_inner_path_traversal_and_links(place: Path) -> None:
    evil = tgz({"train/S01/../../../../evil.wav": b"x"})
    (place / "a.tgz").write_bytes(tgz({"data_aishell/wav/S01.tar.gz": evil}))
    with pytest.raises(UserError, match=r"a\.tgz:S01\.tar\.gz.*outside its folder"):
        unpack(place / "a.tgz", place / "deep" / "in")
    assert not list(place.rglob("evil.wav"))
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as output:
        link = tarfile.TarInfo("data_aishell/wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        output.addfile(link)
    (place / "b.tgz").write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="is a link or a device"):
        unpack(place / "b.tgz", place / "in2")


def test_other_archive_in_the_same_place(place: Path) -> None:
    path = write_corpus(place, COUNTS)
    unpack(path, place)
    write_corpus(place, {"train": 1, "dev": 1, "test": 1})
    with pytest.raises(UserError, match="--unpack_to"):
        unpack(path, place)


def test_another_archive_after_an_interruption_starts_anew(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_corpus(place, COUNTS)
    monkeypatch.setattr(archive_module, "set_complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        unpack(path, place)
    monkeypatch.undo()
    assert len(list(place.rglob("*.wav"))) == 12
    write_corpus(place, {"train": 1, "dev": 1, "test": 1})
    unpack(path, place)
    assert len(list(place.rglob("*.wav"))) == 6  # nothing of the first one is left


def test_no_space_is_found_out_before_unpacking(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_corpus(place, COUNTS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(UserError, match=r"needs .* GB more"):
        unpack(path, place)
    assert not (place / "data_aishell").exists()

"""dump-teacher: archives as Kaldi reads them, one matrix per distinct text, and runs that go on where they stopped."""

import errno
import json
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing
from espnet_gmot.kaldi.ark import check_archive, write_archive
from espnet_gmot.kaldi.shards import Shard
from espnet_gmot.kaldi.tables import read_transcripts
from espnet_gmot.teacher import PLMTeacher, dump
from tests.teacher.conftest import TEXT, Dumped, save_bert


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Five utterances, their speed-perturbed copies first, and one repetition."""
    lines = [f"sp0.9-utt{i} {t}" for i, t in enumerate(TEXT)] + [f"utt{i} {t}" for i, t in enumerate(TEXT)]
    path = tmp_path / "text"
    path.write_text("\n".join([*lines, f"utt9 {TEXT[1]}"]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two transcripts an ark, so that five make three arks."""
    monkeypatch.setattr(dump, "_SMALLEST_SHARD", 2)


def run(model: Path, text: Path, out: Path, *more: str) -> None:
    assert dump.main(["--model", str(model), "--text", str(text), "--out", str(out), *more]) == 0


@pytest.mark.usefixtures("small_shards")
def test_kaldiio_reads_what_the_teacher_says(tiny_plm: Path, text: Path, tmp_path: Path) -> None:
    run(tiny_plm, text, tmp_path / "out", "--batch_size", "2", "--layer", "1")
    transcripts = read_transcripts(text)
    matrices = kaldiio.load_scp(str(tmp_path / "out/teacher.scp"))
    assert list(matrices) == list(transcripts)
    teacher = PLMTeacher(str(tiny_plm), layer=1)
    for utterance, transcript in transcripts.items():
        assert matrices[utterance].dtype == np.float32
        torch.testing.assert_close(torch.tensor(matrices[utterance]), teacher([transcript])[0][0], atol=1e-5, rtol=0)
    archive = Dumped(tmp_path / "out")
    rows = np.concatenate([matrices[f"utt{i}"] for i in range(5)])
    np.testing.assert_allclose(archive.mean, rows.mean(0), atol=1e-5)
    expected = {"width": 32, "utterances": 11, "texts": 5, "rows": len(rows), "layer": 1, "unknown_rate": 0}
    assert archive.info.items() >= expected.items()


@pytest.mark.usefixtures("small_shards")
def test_equal_texts_share_a_matrix(tiny_plm: Path, text: Path, tmp_path: Path) -> None:
    run(tiny_plm, text, tmp_path / "out")
    places = dict(line.split() for line in (tmp_path / "out/teacher.scp").read_text().splitlines())
    assert all(places[f"utt{i}"] == places[f"sp0.9-utt{i}"] for i in range(5)) and places["utt9"] == places["utt1"]
    assert len(set(places.values())) == 5
    assert sorted(p.name for p in (tmp_path / "out").glob("*.ark")) == [f"teacher.{i}.ark" for i in range(3)]


@pytest.mark.usefixtures("small_shards")
def test_goes_on_after_a_kill_and_mends_a_truncated_ark(
    tiny_plm: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, computed = tmp_path / "out", []
    whole = dump.dump_shard

    def counted(teacher: PLMTeacher, batch_size: int, shard: Shard, advance: object) -> None:
        if len(computed) == kill_after:
            raise KeyboardInterrupt
        whole(teacher, batch_size, shard, advance)
        computed.append(shard.path.name)

    monkeypatch.setattr(dump, "dump_shard", counted)
    kill_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(tiny_plm, text, out)
    assert computed == ["teacher.2.ark", "teacher.1.ark"] and not (out / "teacher.scp").exists()
    kill_after = 9
    run(tiny_plm, text, out)
    assert computed[2:] == ["teacher.0.ark"]
    before = {p.name: p.read_bytes() for p in out.glob("*.ark")}
    offsets = json.loads((out / "teacher.1.json").read_text())["offsets"]
    for size in (len(before["teacher.1.ark"]) - 1, 9, 0):
        (out / "teacher.1.ark").write_bytes(before["teacher.1.ark"][:size])
        with pytest.raises(UserError, match=r"teacher.1.ark: truncated at byte \d+"):
            check_archive(out / "teacher.1.ark", offsets, 32)
        run(tiny_plm, text, out)
        assert computed[-1] == "teacher.1.ark" and (out / "teacher.1.ark").read_bytes() == before["teacher.1.ark"]
    assert len(computed) == 6
    run(tiny_plm, text, out)
    assert len(computed) == 6
    text.write_text(text.read_text().splitlines()[0] + "\n")  # another text: what is of no use any more goes
    run(tiny_plm, text, out)
    assert [p.name for p in out.glob("*.ark")] == ["teacher.0.ark"] and list(Dumped(out).rows) == ["sp0.9-utt0"]


def test_a_second_call_touches_no_file(tiny_plm: Path, text: Path, tmp_path: Path) -> None:
    """The recipe tells large tables by their time: one written again would have trainings begin again."""
    text.write_text(text.read_text(encoding="utf-8") + "utt10 <NOISE>\n", encoding="utf-8")
    (tmp_path / "symbols").write_text("<NOISE>\n")
    words = ["--nlsyms_txt", str(tmp_path / "symbols"), "--normalise", "centre"]
    run(tiny_plm, text, tmp_path / "out", *words)
    files = {path: path.stat() for path in (tmp_path / "out").iterdir()}
    assert {"teacher.scp", "teacher.json", "skipped.txt"} < {path.name for path in files}
    run(tiny_plm, text, tmp_path / "out", *words)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "out").iterdir()} == {
        path: (state.st_mtime_ns, state.st_ino) for path, state in files.items()
    }


def test_other_options_are_refused_unless_told(tiny_plm: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(tiny_plm, text, out)
    before = (out / "teacher.scp").read_bytes()
    with pytest.raises(UserError, match=r"already holds features with another layer .*--overwrite"):
        run(tiny_plm, text, out, "--layer", "1")
    other = save_bert(tmp_path / "other", TEXT, seed=1)
    with pytest.raises(UserError, match="features with another model"):
        run(other, text, out)
    assert (out / "teacher.scp").read_bytes() == before
    run(tiny_plm, text, out, "--layer", "3")  # the last layer by its other name
    run(tiny_plm, text, out, "--layer", "1", "--special_tokens", "--overwrite")
    assert Dumped(out).rows["utt0"].shape == (8, 32) and Dumped(out).info["layer"] == 1


def test_processes_give_the_same_bytes(tiny_plm: Path, tmp_path: Path) -> None:
    path = tmp_path / "text"
    characters = sorted(set("".join(TEXT)))
    path.write_text("".join(f"utt{i}-{j} {a}{b}\n" for i, a in enumerate(characters) for j, b in enumerate(characters)))
    run(tiny_plm, path, tmp_path / "one")
    run(tiny_plm, path, tmp_path / "two", "--nj", "2")
    arks = sorted(p.name for p in (tmp_path / "one").glob("*.ark"))
    assert len(arks) == 2
    assert all((tmp_path / "one" / a).read_bytes() == (tmp_path / "two" / a).read_bytes() for a in arks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 今天\nb\n", r"text: 1 of 2 utterances have no transcript, the first is b"),
        ("a 今天\nb 天\na 天\n", r"text:3: a is already on line 1"),
        ("", r"text: empty"),
        ("a \ue000\u200b\n", r"text: no transcript holds anything for the teacher to read"),
    ],
)
def test_bad_texts(tiny_plm: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "text").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        run(tiny_plm, tmp_path / "text", tmp_path / "out")
    assert not (tmp_path / "out/teacher.scp").exists()


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_symbols_are_not_read_and_an_utterance_of_nothing_else_is_listed(
    tiny_plm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, precision: str
) -> None:
    lines = ["a <NOISE>今天", "b <NOISE>", "sp0.9-b <NOISE> [laugh]", "c \ufeff今\u200b天", "d 今天"]
    (tmp_path / "text").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "nlsyms").write_text("<NOISE>\n[laugh]\n\n")
    out = tmp_path / "out"
    options = ["--nlsyms_txt", str(tmp_path / "nlsyms"), "--precision", precision, "--normalise", "centre"]
    run(tiny_plm, tmp_path / "text", out, *options)
    matrices = kaldiio.load_scp(str(out / "teacher.scp"))
    assert matrices["a"].shape == (2, 32) and matrices["a"].any()
    assert all(np.array_equal(matrices["a"], matrices[key]) for key in "cd")
    for key in ("b", "sp0.9-b"):
        assert matrices[key].shape == (1, 32) and not matrices[key].any()
    assert (out / "skipped.txt").read_text() == "b nothing to read\nsp0.9-b nothing to read\n"
    assert json.loads((out / "teacher.json").read_text())["skipped"] == 2
    assert "2 utterances hold nothing for the teacher to read: no transfer for them: b, sp0.9-b" in caplog.text
    with pytest.raises(UserError, match=r"--nlsyms_txt /none: no such file"):
        run(tiny_plm, tmp_path / "text", out, "--nlsyms_txt", "/none")


def test_tables_of_other_editors(tiny_plm: Path, text: Path, tmp_path: Path) -> None:
    run(tiny_plm, text, tmp_path / "out")
    plain = text.read_text(encoding="utf-8")
    lines = [f"{key}\t{transcript}\u200b\u3000\r\n\r\n" for key, transcript in read_transcripts(text).items()]
    text.write_text("\ufeff" + "".join(lines), encoding="utf-8", newline="")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("teacher.*")}
    run(tiny_plm, text, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("teacher.*")} == before
    assert text.read_text(encoding="utf-8") != plain


def test_unreadable_texts_and_options(tiny_plm: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none: no such file"):
        run(tiny_plm, tmp_path / "none", tmp_path / "out")
    text.write_bytes("a 今天\n".encode("gb18030"))
    with pytest.raises(UserError, match=r"not UTF-8.*iconv"):
        run(tiny_plm, text, tmp_path / "out")
    for option, value in (("--nj", "0"), ("--batch_size", "0"), ("--max_unknown", "2.0"), ("--device", "cuda:9")):
        with pytest.raises(UserError, match=f"^{option} {value}: "):
            run(tiny_plm, text, tmp_path / "out", option, value)


def test_short_forms_are_refused(capsys: pytest.CaptureFixture) -> None:
    """What run.sh and others hand on is read in full there: one spelling of each option."""
    with pytest.raises(SystemExit):
        dump.get_parser().parse_args(["--model", "m", "--text", "t", "--out", "o", "--normal", "whiten"])
    assert "unrecognized arguments: --normal whiten" in capsys.readouterr().err


def test_full_disk_and_unwritable_folder(tiny_plm: Path, text: Path, tmp_path: Path) -> None:
    def matrices() -> object:
        yield "a", np.zeros((2, 3))
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"x.ark: no space left on the disk"):
        write_archive(tmp_path / "x.ark", matrices())
    assert [p.name for p in tmp_path.iterdir()] == ["text"]  # neither half an ark nor a temporary file
    with pytest.raises(UserError, match="cannot be written"):
        run(tiny_plm, text, text / "below")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "y"):
        _ = 1 / 0
    assert not (tmp_path / "y").exists()


def test_check_archive_finds_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.ark"
    offsets = write_archive(path, [("a", np.ones((2, 3))), ("b", np.zeros((1, 3)))])
    check_archive(path, offsets, 3)
    for wrong, width in (([offsets[1] - 1], 3), (offsets, 4)):
        with pytest.raises(UserError, match="no float matrix of"):
            check_archive(path, wrong, width)
    with pytest.raises(UserError, match="missing"):
        check_archive(tmp_path / "y.ark", offsets, 3)


@pytest.mark.parametrize(("precision", "item", "per_column", "error"), [("float16", 2, 0, 1e-4), ("int8", 1, 8, 0.03)])
def test_compressed_archives(
    tiny_plm: Path, text: Path, tmp_path: Path, precision: str, item: int, per_column: int, error: float
) -> None:
    run(tiny_plm, text, tmp_path / "whole")
    run(tiny_plm, text, tmp_path / "less", "--precision", precision)
    whole, less = Dumped(tmp_path / "whole"), Dumped(tmp_path / "less")
    for utterance, matrix in whole.rows.items():
        assert less.rows[utterance].dtype == np.float32
        assert 0 < np.abs(less.rows[utterance] - matrix).max() < error * np.ptp(matrix)
    assert less.info["precision"] == precision and whole.info["precision"] == "float32"
    ark = tmp_path / "less/teacher.0.ark"
    names, header = 5 * len("sp0.9-utt0 "), 5 * len("\0BCM2 ") + 5 * 16 - 5 * (precision == "int8")
    assert ark.stat().st_size == names + header + 32 * (item * less.info["rows"] + per_column * 5)
    data, offsets = ark.read_bytes(), json.loads(ark.with_suffix(".json").read_text())["offsets"]
    for size in (len(data) - 1, offsets[1] + 9, 0):
        ark.write_bytes(data[:size])
        with pytest.raises(UserError, match="truncated at byte"):
            check_archive(ark, offsets, 32)
        run(tiny_plm, text, tmp_path / "less", "--precision", precision)
        assert ark.read_bytes() == data
    with pytest.raises(UserError, match="already holds features with another precision"):
        run(tiny_plm, text, tmp_path / "less")


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 40])
@pytest.mark.filterwarnings("error")
def test_compression_stands_few_rows_and_outliers(tmp_path: Path, precision: str, rows: int) -> None:
    matrix = np.random.default_rng(rows).normal(size=(rows, 8)).astype(np.float32)
    matrix[:, 3] *= 0  # a constant column
    matrix[:, 5] -= 20  # a language model's outlier column
    (offset,) = write_archive(tmp_path / "x.ark", [("a", matrix)], precision)
    check_archive(tmp_path / "x.ark", [offset], 8)
    read = kaldiio.load_mat(f"{tmp_path / 'x.ark'}:{offset}")
    assert np.abs(read - matrix).max() < (0.05 if precision == "int8" else 2e-3)


def test_several_layers_side_by_side(tiny_plm: Path, text: Path, tmp_path: Path) -> None:
    run(tiny_plm, text, tmp_path / "out", "--layer", "1", "2", "-1")
    archive = Dumped(tmp_path / "out")
    assert archive.info["width"] == archive.mean.size == 96 and archive.info["layer"] == [1, 2, 3]
    single = [PLMTeacher(str(tiny_plm), layer=layer)([TEXT[2]])[0][0] for layer in (1, 2, 3)]
    torch.testing.assert_close(torch.tensor(archive.rows["utt2"]), torch.cat(single, dim=1), atol=1e-5, rtol=0)
    run(tiny_plm, text, tmp_path / "out", "--layer", "1", "2", "3")  # the same by another name
    with pytest.raises(UserError, match="another layer"):
        run(tiny_plm, text, tmp_path / "out", "--layer", "1", "2")


@pytest.mark.espnet
def test_espnet_reads_the_stream(tiny_plm: Path, text: Path, tmp_path: Path) -> None:
    run(tiny_plm, text, tmp_path / "out", "--precision", "int8")
    from espnet2.train.dataset import ESPnetDataset

    scp = str(tmp_path / "out/teacher.scp")
    dataset = ESPnetDataset([(scp, "teacher", "kaldi_ark")], preprocess=None)
    utterance, data = dataset["sp0.9-utt2"]
    assert utterance == "sp0.9-utt2"
    np.testing.assert_array_equal(data["teacher"], Dumped(tmp_path / "out").rows["utt2"])


@pytest.mark.shared
def test_real_model_into_archives(shared_plm: Path, text: Path, tmp_path: Path) -> None:
    run(shared_plm, text, tmp_path / "out")
    archive = Dumped(tmp_path / "out")
    assert archive.rows["utt0"].shape == (6, 384) and archive.info["rows"] == sum(map(len, TEXT))

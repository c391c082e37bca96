"""Centring and whitening: the statistics' mathematics, in archives and online, and who borrows them from whom."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.teacher import PLMTeacher, dump, statistics
from espnet_gmot.teacher.normalise import SHRINKAGE, FeatureStats, Normaliser, shrunk_whitening
from espnet_gmot.teacher.statistics import sample_texts
from tests.teacher.conftest import TEXT, Dumped, save_bert

CHARACTERS = sorted(set("".join(TEXT)))
TRAIN = [a + b for a in CHARACTERS for b in CHARACTERS]  # some 800 rows of width 32
VALID = ["天气很好", "书好看"]


def run(model: Path, texts: list[str], out: Path, *more: str) -> Dumped:
    path = out.with_suffix(".text")
    path.write_text("".join(f"utt{i} {text}\n" for i, text in enumerate(texts)), encoding="utf-8")
    assert dump.main(["--model", str(model), "--text", str(path), "--out", str(out), *more]) == 0
    return Dumped(out)


def test_whitened_training_rows_have_identity_covariance(tiny_plm: Path, tmp_path: Path) -> None:
    plain = run(tiny_plm, TRAIN, tmp_path / "plain", "--layer", "1", "3").stacked()
    archive = run(tiny_plm, TRAIN, tmp_path / "white", "--layer", "1", "3", "--normalise", "whiten")
    white = archive.stacked()
    np.testing.assert_allclose(white.mean(0), 0, atol=2e-4)
    assert np.abs(archive.mean).max() < 2e-4 and archive.info["normalise"] == "whiten"
    for layer in (slice(0, 32), slice(32, 64)):
        values, vectors = np.linalg.eigh(np.cov(plain[:, layer].T, bias=True))
        expected = values.clip(min=0) / ((1 - SHRINKAGE) * values + SHRINKAGE * values.mean())
        along = np.cov((white[:, layer] @ vectors).T, bias=True)
        np.testing.assert_allclose(along, np.diag(expected), atol=2e-3)
        assert np.median(expected) > 0.9  # what shrinkage leaves is the identity in most directions
        assert np.median(np.abs(np.linalg.eigvalsh(np.cov(plain[:, layer].T)) - 1)) > 0.5  # it was far from it


def test_whitening_without_shrinkage_is_exact_and_symmetric() -> None:
    mixed = np.random.default_rng(0).normal(size=(500, 6)) @ np.diag([1, 2, 3, 5, 10, 30.0]) @ np.ones((6, 6)) / 6
    mixed += np.random.default_rng(1).normal(size=(500, 6))
    whitening = shrunk_whitening(np.cov(mixed.T), shrinkage=1e-12)
    np.testing.assert_allclose(np.cov((mixed @ whitening).T), np.eye(6), atol=1e-8)
    np.testing.assert_allclose(whitening, whitening.T, atol=1e-12)
    with pytest.raises(UserError, match="do not vary"):
        shrunk_whitening(np.zeros((3, 3)))


def test_centring_shifts_by_the_training_mean(tiny_plm: Path, tmp_path: Path) -> None:
    plain = run(tiny_plm, TRAIN, tmp_path / "plain")
    centred = run(tiny_plm, TRAIN, tmp_path / "train", "--normalise", "centre")
    np.testing.assert_allclose(centred.stacked().mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(plain.stacked() - plain.mean, centred.stacked(), atol=1e-5)
    valid = run(tiny_plm, VALID, tmp_path / "valid", "--normalise", "centre", "--stats", str(tmp_path / "train"))
    raw = run(tiny_plm, VALID, tmp_path / "raw")
    np.testing.assert_allclose(raw.stacked() - plain.mean, valid.stacked(), atol=1e-5)
    assert np.abs(valid.stacked().mean(0)).max() > 0.1  # its own mean is another


def test_online_equals_archive_and_padding_stays_zero(tiny_plm: Path, tmp_path: Path) -> None:
    archive = run(tiny_plm, TRAIN, tmp_path / "train", "--layer", "1", "3", "--normalise", "whiten")
    valid = run(
        *(tiny_plm, VALID, tmp_path / "valid", "--layer", "1", "3"),
        *("--normalise", "whiten", "--stats", str(tmp_path / "train/teacher_stats.npz")),
    )
    assert valid.info["width"] == archive.info["width"] == 64
    # the folder that borrowed can lend
    teacher = PLMTeacher(str(tiny_plm), layer=[1, 3], stats=tmp_path / "valid")
    features, lengths = teacher(VALID)
    for i, length in enumerate(lengths):
        np.testing.assert_allclose(features[i, :length], valid.rows[f"utt{i}"], atol=1e-4)
    assert lengths.tolist() == [4, 3] and not features[1, 3:].any() and teacher.width == 64
    with pytest.raises(UserError, match=r"statistics are of 2 layer\(s\) of width 32, the features have 32"):
        PLMTeacher(str(tiny_plm), stats=tmp_path / "valid")(VALID)


def test_whitening_spreads_cosines() -> None:
    torch.manual_seed(0)
    rows = torch.randn(400, 16) * torch.logspace(0, -2, 16) + 3.0

    def spread(features: torch.Tensor) -> float:
        unit = torch.nn.functional.normalize(features, dim=-1)
        return (1 - unit @ unit.T).std().item()

    covariance = torch.cov(rows.T, correction=0).double().numpy()
    whitening = shrunk_whitening(covariance).astype(np.float32)[None]
    white = Normaliser(FeatureStats(rows.mean(0, keepdim=True).numpy(), whitening, 400))(rows)
    assert spread(rows) < 0.1 < 0.2 < spread(white)
    assert white.shape == rows.shape


def test_reruns_keep_and_new_transcripts_renew_the_statistics(
    tiny_plm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, measured = tmp_path / "train", []
    whole = statistics.measure
    monkeypatch.setattr(dump, "measure", lambda *a, **k: measured.append(1) or whole(*a, **k))
    run(tiny_plm, TRAIN[:50], out, "--normalise", "centre")
    first = (out / "teacher_stats.npz").read_bytes()
    run(tiny_plm, TRAIN[:50], out, "--normalise", "centre")
    assert len(measured) == 1 and (out / "teacher_stats.npz").read_bytes() == first
    (out / "teacher_stats.npz").write_bytes(first[:100])  # damaged: made again
    run(tiny_plm, TRAIN[:50], out, "--normalise", "centre")
    assert len(measured) == 2 and (out / "teacher_stats.npz").read_bytes() == first
    archive = run(tiny_plm, TRAIN[50:90], out, "--normalise", "centre")
    assert len(measured) == 3
    np.testing.assert_allclose(archive.stacked().mean(0), 0, atol=1e-5)


def test_statistics_that_do_not_fit(tiny_plm: Path, tmp_path: Path) -> None:
    train = tmp_path / "train"
    run(tiny_plm, VALID, train, "--normalise", "centre")
    for more, message in (
        (("--stats", str(train)), "say what to do with them"),
        (("--stats", str(train), "--normalise", "whiten"), "made with --normalise centre, not whiten"),
        (("--stats", str(train), "--normalise", "centre", "--layer", "1"), "made with another layer"),
        (("--stats", str(tmp_path / "none"), "--normalise", "centre"), "no such file; run dump-teacher --normalise"),
    ):
        with pytest.raises(UserError, match=message):
            run(tiny_plm, VALID, tmp_path / "valid", *more)
    other = save_bert(tmp_path / "other", TEXT, seed=1)
    with pytest.raises(UserError, match="made with another model"):
        run(other, VALID, tmp_path / "valid", "--stats", str(train), "--normalise", "centre")
    with pytest.raises(UserError, match="already holds features with another normalise"):
        run(tiny_plm, VALID, train, "--normalise", "whiten")
    with pytest.raises(UserError, match="already holds features with another normalise"):
        run(tiny_plm, VALID, train)
    (train / "teacher_stats.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="damaged"):
        FeatureStats.load(train)


def test_the_benchmark_runs(
    tiny_plm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    script = Path(__file__).parents[2] / "benchmarks/teacher_archives.py"
    (tmp_path / "text").write_text("".join(f"utt{i} {text}\n" for i, text in enumerate(TRAIN)), encoding="utf-8")
    words = ["--model", str(tiny_plm), "--text", str(tmp_path / "text"), "--work", str(tmp_path / "w"), "--texts", "20"]
    monkeypatch.setattr("sys.argv", [str(script), *words])
    runpy.run_path(str(script), run_name="__main__")
    table = [line.split("|") for line in capsys.readouterr().out.splitlines()]
    assert [row[1].strip() for row in table[2::3]] == ["none", "none, centred", "centre", "whiten"] and len(table) == 14
    assert [row[3].strip() for row in table[2::3]] == ["1.000"] * 4


def test_a_sample_is_spread_over_all_lengths() -> None:
    texts = ["x" * n for n in range(1, 101)] * 2
    assert sample_texts(texts, 200) == texts[:100]
    assert [len(text) for text in sample_texts(texts, 10)] == list(range(1, 100, 10))

"""dump-frontend: order, content, resuming after damage, and the errors users meet."""

import json
import logging
import shutil
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import torch

from espnet_gmot.errors import UserError

pytest.importorskip("espnet2")
from espnet_gmot.hosts.frontend import HFSpeechFrontend
from espnet_gmot.kaldi.wav import read_audio, read_wav_scp
from espnet_gmot.speech import dump as dump_frontend
from tests.hosts.test_frontend import tiny


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """wav.scp of 40 utterances, neither sorted by name nor by length."""
    rng = np.random.default_rng(0)
    (tmp_path / "wavs").mkdir()
    lines = []
    for i in rng.permutation(40):
        path = tmp_path / "wavs" / f"u{i:02d}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(int(rng.integers(800, 4000))), 16000)
        lines.append(f"u{i:02d} {path}\n")
    (tmp_path / "wav.scp").write_text("".join(lines))
    return tmp_path / "wav.scp"


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A tiny Whisper."""
    return tiny("whisper", tmp_path / "model")


def run(model: str, corpus: Path, *extra: str) -> Path:
    out = corpus.parent / "out"
    assert dump_frontend.main(["--model", model, "--wav_scp", str(corpus), "--out", str(out), *extra]) == 0
    return out


def test_features_are_the_frontends_in_wav_scp_order(model: str, corpus: Path) -> None:
    out = run(model, corpus, "--layer", "1", "--batch_size", "3")
    keys = [line.split()[0] for line in corpus.read_text().splitlines()]
    assert [line.split()[0] for line in (out / "feats.scp").read_text().splitlines()] == keys
    frames = dict(line.split() for line in (out / "utt2num_frames").read_text().splitlines())
    assert list(frames) == keys
    feats = kaldiio.load_scp(str(out / "feats.scp"))
    frontend = HFSpeechFrontend(model, layer=1)
    for key in keys[:5]:
        audio = torch.from_numpy(soundfile.read(corpus.parent / "wavs" / f"{key}.wav", dtype="float32")[0])
        expected, count = frontend(audio[None], torch.tensor([len(audio)]))
        assert feats[key].dtype == np.float32
        assert int(frames[key]) == count.item()
        np.testing.assert_allclose(feats[key], expected[0].numpy(), atol=1e-4)
    info = json.loads((out / "frontend.json").read_text())
    assert (info["utterances"], info["width"], info["layer"]) == (40, 16, 1)
    assert info["frames"] == sum(map(int, frames.values()))
    assert info["weights"] == frontend.encoder.fingerprint


def test_pooled_features_are_the_means_of_neighbours(model: str, corpus: Path) -> None:
    feats = dict(kaldiio.load_scp_sequential(str(run(model, corpus, "--batch_size", "3") / "feats.scp")))
    with pytest.raises(UserError, match="already holds features with another pool"):
        run(model, corpus, "--pool", "2")
    shutil.rmtree(corpus.parent / "out")
    out = run(model, corpus, "--batch_size", "3", "--pool", "2")
    pooled = dict(kaldiio.load_scp_sequential(str(out / "feats.scp")))
    frames = dict(line.split() for line in (out / "utt2num_frames").read_text().splitlines())
    assert {len(matrix) % 2 for matrix in feats.values()} == {0, 1}
    for key, matrix in feats.items():
        means = [matrix[start : start + 2].mean(0) for start in range(0, len(matrix), 2)]
        assert int(frames[key]) == len(means)
        np.testing.assert_array_equal(pooled[key], means)  # exact: halves of a float32 sum


def test_rerun_mends_what_is_broken_and_keeps_the_rest(
    model: str, corpus: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(model, corpus)
    whole = {path.name: path.read_bytes() for path in out.glob("feats.*")}
    (out / "feats.1.ark").write_bytes(whole["feats.1.ark"][:-1])  # truncated
    (out / "feats.2.json").write_text("{")  # killed while writing, by something that does not write atomically
    computed = []
    dump_shard = dump_frontend.dump_shard
    monkeypatch.setattr(
        dump_frontend,
        "dump_shard",
        lambda f, size, shard, *rest: (computed.append(shard.path.name), dump_shard(f, size, shard, *rest)),
    )
    with caplog.at_level(logging.WARNING):
        run(model, corpus)
    assert sorted(computed) == ["feats.1.ark", "feats.2.ark"]
    assert "feats.1.ark: truncated" in caplog.text
    assert {path.name: path.read_bytes() for path in out.glob("feats.*")} == whole
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    run(model, corpus)
    assert len(computed) == 2, "nothing is left to do"
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times, "nor written again"


def test_bad_utterances_are_listed_and_skipped_up_to_a_limit(model: str, corpus: Path) -> None:
    whole = {path.name: path.read_bytes() for path in run(model, corpus).glob("feats.*")}
    shutil.rmtree(corpus.parent / "out")
    silent, cut = corpus.parent / "wavs/u07.wav", corpus.parent / "wavs/u21.wav"
    good = {path: path.read_bytes() for path in (silent, cut)}
    soundfile.write(silent, np.zeros(len(soundfile.read(silent)[0])), 16000)
    with pytest.raises(UserError, match=r"bad_utterances: 1 of 40 .* u07: .*silent.*; mend .* --max_bad 1$"):
        run(model, corpus)  # everything else was computed and stays
    out = corpus.parent / "out"
    assert len(list(out.glob("*.ark"))) == 3
    assert not (out / "feats.scp").exists() and not list(out.glob(".*.tmp"))
    cut.write_bytes(good[cut][:-100])
    with pytest.raises(UserError, match=r"bad_utterances: 1 of 40 .* u21: .*truncated"):
        run(model, corpus)  # known from the header, before anything is computed
    run(model, corpus, "--max_bad", "2")
    assert len(kaldiio.load_scp(str(out / "feats.scp"))) == 38
    lines = (out / "bad_utterances").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["u07", "u21"]
    for path, data in good.items():
        path.write_bytes(data)
    run(model, corpus)  # mended: computed again
    assert not (out / "bad_utterances").exists()
    assert {path.name: path.read_bytes() for path in out.glob("feats.*")} == whole


def test_other_features_are_not_mixed_in(model: str, corpus: Path) -> None:
    out = run(model, corpus)
    with pytest.raises(UserError, match=r"already holds features with another layer .*; choose another --out"):
        run(model, corpus, "--layer", "0")
    before = (out / "feats.0.ark").read_bytes()
    run(model, corpus, "--layer", "0", "--overwrite")
    assert (out / "feats.0.ark").read_bytes() != before


def test_processes_give_the_same_features(model: str, corpus: Path) -> None:
    alone = dict(kaldiio.load_scp_sequential(str(run(model, corpus) / "feats.scp")))
    shutil.rmtree(corpus.parent / "out")
    together = kaldiio.load_scp(str(run(model, corpus, "--nj", "2") / "feats.scp"))
    assert len(alone) == len(together) == 40
    for key, matrix in alone.items():
        np.testing.assert_allclose(together[key], matrix, atol=1e-5)


def test_archives_and_commands_are_read_like_files(corpus: Path) -> None:
    source = next(iter(read_wav_scp(corpus).values()))
    samples, _ = soundfile.read(source, dtype="int16")
    folder = corpus.parent
    kaldiio.save_ark(str(folder / "wav.ark"), {"a": (16000, samples)}, scp=str(folder / "a.scp"))
    flac = {"b": (samples, 16000)}
    kaldiio.save_ark(  # as ESPnet's flac.ark
        str(folder / "flac.ark"),
        flac,
        scp=str(folder / "b.scp"),
        write_function="soundfile",
        write_kwargs={"format": "flac", "subtype": "PCM_16"},
    )
    (folder / "c.scp").write_text(f"c cat {source} |\n")
    expected = read_audio(source, 16000)
    assert expected.dtype == np.float32
    for name in "abc":
        (other,) = read_wav_scp(folder / f"{name}.scp").values()
        np.testing.assert_array_equal(read_audio(other, 16000), expected)


def test_other_rates_are_resampled(model: str, corpus: Path) -> None:
    path = corpus.parent / "wavs" / "u00.wav"
    time = np.arange(44100) / 44100
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time), 44100)
    table = corpus.read_text().replace(" ", "\t").replace("\n", "\r\n\r\n")  # and a table of another editor
    corpus.write_text("\ufeff" + table, encoding="utf-8", newline="")
    frames = dict(line.split() for line in (run(model, corpus) / "utt2num_frames").read_text().splitlines())
    assert len(frames) == 40
    assert frames["u00"] == "50"  # a second at Whisper's 50 frames a second


def damage(corpus: Path, kind: str) -> str:
    """Break the first utterance or the table; return what the error must say."""
    lines = corpus.read_text().splitlines(keepends=True)
    path = Path(lines[0].split()[1])
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
        return f"{path.name}: truncated, .* bytes of samples; restore the file"
    if kind == "text":
        path.write_text("no audio at all")
        return f"{path.name}: no readable audio"
    if kind == "missing":
        path.unlink()
        return f"1 of 40 utterances can't be used, the first is {path.stem}: {path}: no such file"
    if kind == "duplicate":
        corpus.write_text("".join(lines + lines[:1]))
        return f"wav.scp:41: {path.stem} is already on line 1"
    if kind == "encoding":
        corpus.write_text("u1 /数据/a.wav\n", encoding="gb18030")
        return r"wav\.scp: not UTF-8 .* iconv -f GB18030"
    if kind == "no path":
        corpus.write_text("u1\n")
        return "wav.scp: 'u1' is not an `utterance path` line"
    if kind == "empty":
        corpus.write_text("")
        return "wav.scp: empty"
    if kind == "segments":
        (corpus.parent / "segments").write_text("u1 u1 0 1\n")
        return "utterances must be cut first"
    if kind == "stereo":
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (4000, 2)), 16000)
        return f"{path.name}: 2 channels; mix it down to one"
    if kind == "no samples":
        soundfile.write(path, np.zeros(0), 16000)
        return f"{path.name}: holds no samples"
    soundfile.write(path, np.full(4000, np.nan), 16000, subtype="FLOAT")
    return f"{path.name}: 4000 samples are not finite"


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "text",
        "missing",
        "duplicate",
        "encoding",
        "no path",
        "empty",
        "segments",
        "stereo",
        "no samples",
        "nan",
    ],
)
def test_bad_input_is_named(kind: str, model: str, corpus: Path) -> None:
    message = damage(corpus, kind)
    with pytest.raises(UserError, match=message):
        run(model, corpus)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--pool", "0"), ("--nj", "0"), ("--batch_size", "0"), ("--device", "quantum"), ("--layer", "9")],
)
def test_bad_options_are_named(option: str, value: str, model: str, corpus: Path) -> None:
    with pytest.raises(UserError, match=option.replace("--layer", "layer") + r".*" + value):
        run(model, corpus, option, value)


def test_short_forms_are_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        dump_frontend.get_parser().parse_args(["--model", "m", "--wav_scp", "w", "--out", "o", "--max", "3"])
    assert "unrecognized arguments: --max 3" in capsys.readouterr().err

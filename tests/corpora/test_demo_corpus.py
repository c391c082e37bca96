"""The synthetic corpus: AISHELL-1's form, held-out sentences, audible speech, the same bytes on every machine."""

import io
import json
import random
import subprocess
import sys
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest

from espnet_gmot.corpora import demo_corpus, demo_text
from espnet_gmot.corpora.demo_corpus import SPEAKERS, DemoOptions, Utterance, build_corpus, check_disjoint, plan_corpus
from espnet_gmot.corpora.demo_text import HOMOPHONES, distinct_sentences
from espnet_gmot.corpora.demo_voice import Synthesiser
from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.ctm import read_ctm

OPTIONS = DemoOptions(train=6, dev=2, test=3, domain=20, seed=3)


def _contents(tgz: Path) -> dict[str, bytes]:
    """Every file of the corpus by its path after unpacking the outer and the inner archives."""
    files = {}
    with tarfile.open(tgz) as outer:
        for member in outer:
            content = outer.extractfile(member).read() if member.isfile() else b""
            if member.name.endswith(".tar.gz"):
                with tarfile.open(fileobj=io.BytesIO(content)) as inner:
                    files.update({f"data_aishell/wav/{m.name}": inner.extractfile(m).read() for m in inner})
            elif member.isfile():
                files[member.name] = content
    return files


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader")
    out = tmp_path_factory.mktemp("corpus")
    assert build_corpus(out, OPTIONS)
    return out


def test_archive_has_the_form_of_aishell(corpus: Path) -> None:
    files = _contents(corpus / "data_aishell.tgz")
    transcript = files.pop("data_aishell/transcript/aishell_transcript_v0.8.txt").decode()
    texts = dict(line.split(" ") for line in transcript.splitlines())
    assert sorted(texts) == sorted(Path(name).stem for name in files)
    for split in ("train", "dev", "test"):
        own = [name for name in files if name.startswith(f"data_aishell/wav/{split}/")]
        assert len(own) == getattr(OPTIONS, split)
        for name in own:
            speaker = name.split("/")[3]
            assert Path(name).name.startswith(f"BAC009{speaker}W")
            assert int(speaker[1:]) in [s[0] for s in SPEAKERS[split]]
    assert {p.name for p in corpus.iterdir()} == {
        "data_aishell.tgz",
        "domain_text.txt",
        "times.ctm",
        "README.txt",
        "demo_corpus.json",
    }


def test_speech_is_audible_and_as_long_as_its_text(corpus: Path) -> None:
    files = _contents(corpus / "data_aishell.tgz")
    transcript = files.pop("data_aishell/transcript/aishell_transcript_v0.8.txt").decode()
    texts = dict(line.split(" ") for line in transcript.splitlines())
    for name, content in files.items():
        with wave.open(io.BytesIO(content)) as source:
            assert (source.getframerate(), source.getnchannels(), source.getsampwidth()) == (16000, 1, 2)
            samples = np.frombuffer(source.readframes(source.getnframes()), "<i2") / 32768
        assert 0.4 < np.abs(samples).max() < 0.6
        per_character = len(samples) / 16000 / len(texts[Path(name).stem])
        assert 0.12 < per_character < 0.35, name
        assert np.sqrt(np.mean(samples**2)) > 0.03


def test_true_times_are_those_of_the_sound(corpus: Path) -> None:
    """Every character has its time, and its middle is louder than its bounds, where Mandarin closes for a consonant."""
    files = _contents(corpus / "data_aishell.tgz")
    transcript = files.pop("data_aishell/transcript/aishell_transcript_v0.8.txt").decode()
    texts = dict(line.split(" ") for line in transcript.splitlines())
    times = read_ctm(corpus / "times.ctm")
    assert {name: "".join(spoken.token for spoken in tokens) for name, tokens in times.items()} == texts
    middles, bounds = [], []
    for name, content in files.items():
        with wave.open(io.BytesIO(content)) as source:
            samples = np.frombuffer(source.readframes(source.getnframes()), "<i2") / 32768
        tokens = times[Path(name).stem]
        ends = [token.start + token.duration for token in tokens]
        assert 0.03 < tokens[0].start < 0.15 and 0 <= len(samples) / 16000 - ends[-1] < 0.2
        np.testing.assert_allclose([token.start for token in tokens[1:]], ends[:-1], atol=0.0015)
        assert all(0.03 < token.duration < 0.5 for token in tokens)
        power = np.convolve(samples**2, np.ones(320) / 320, "same")  # over 20 ms
        middles += [power[int(16000 * (token.start + 0.6 * token.duration))] for token in tokens[1:]]
        bounds += [power[int(16000 * token.start)] for token in tokens[1:]]
    assert np.mean(middles) > 3 * np.mean(bounds)


def test_same_options_give_the_same_bytes_and_another_seed_others(corpus: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    build_corpus(again, OPTIONS)
    build_corpus(other, DemoOptions(train=6, dev=2, test=3, domain=20, seed=4))
    for name in ("data_aishell.tgz", "domain_text.txt", "times.ctm"):
        assert (again / name).read_bytes() == (corpus / name).read_bytes()
        assert (other / name).read_bytes() != (corpus / name).read_bytes()


def test_second_call_reuses_and_other_options_rebuild(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (corpus / "data_aishell.tgz").stat().st_mtime_ns
    assert not build_corpus(corpus, OPTIONS)
    assert (corpus / "data_aishell.tgz").stat().st_mtime_ns == before

    def boom(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_corpus, "speak_speaker", boom)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(corpus, DemoOptions(train=7, dev=2, test=3, domain=20, seed=3))


def test_interrupted_call_continues_with_the_next_speaker(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken: list[int] = []
    speak = demo_corpus.speak_speaker

    def interrupted(path: Path, utterances: list[Utterance], speaker: tuple, seed: int) -> float:
        if len(spoken) == 3:
            spoken.append(-1)
            raise KeyboardInterrupt
        spoken.append(speaker[0])
        return speak(path, utterances, speaker, seed)

    monkeypatch.setattr(demo_corpus, "speak_speaker", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(tmp_path, OPTIONS)
    assert build_corpus(tmp_path, OPTIONS)
    spoken.remove(-1)
    assert len(spoken) == len(set(spoken))  # nobody spoke twice
    for name in ("data_aishell.tgz", "times.ctm"):
        assert (tmp_path / name).read_bytes() == (corpus / name).read_bytes()


def test_heldout_sentences_occur_nowhere_else(corpus: Path) -> None:
    utterances, domain = plan_corpus(DemoOptions())
    texts = {split: [u.text for u in utterances if u.split == split] for split in SPEAKERS}
    heldout = texts["dev"] + texts["test"]
    assert len(set(heldout)) == len(heldout)
    assert not set(heldout) & (set(texts["train"]) | set(domain))
    assert set("".join(heldout)) <= set("".join(texts["train"])), "a test character never heard in training"
    assert (corpus / "domain_text.txt").read_text(encoding="utf-8").count("\n") == OPTIONS.domain
    with pytest.raises(AssertionError, match="held-out sentence"):
        check_disjoint(utterances, [texts["test"][0]])


def test_homophones_sound_alike_and_all_occur() -> None:
    pytest.importorskip("espeakng_loader")
    text = "".join(distinct_sentences(3000, random.Random(0)))
    with Synthesiser("m1") as voice:
        for group in HOMOPHONES:
            assert len({voice.phonemes(character) for character in group}) == 1, group
            assert all(character in text for character in group), group
    counts = {character: text.count(character) for character in "".join(HOMOPHONES)}
    assert sum(counts.values()) > 0.4 * len(text)


def test_it_says_that_it_is_synthetic(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "SYNTHETIC" in (corpus / "README.txt").read_text(encoding="utf-8")
    assert json.loads((corpus / "demo_corpus.json").read_text())["synthetic"] is True
    sizes = [f"--{name}={value}" for name, value in vars(OPTIONS).items()]
    assert demo_corpus.main(["--out", str(corpus), *sizes]) == 0
    printed = capsys.readouterr().out
    assert "Synthetic speech" in printed and "reused" in printed


def test_user_errors_name_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--dev 0"):
        DemoOptions(dev=0)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="ask for fewer"):
        patch.setattr(demo_text, "sentence", lambda rng: rng.choice(("今天天气很好", "明天天气很好")))
        plan_corpus(OPTIONS)
    with pytest.raises(UserError, match=r"--out .*regular"):
        (tmp_path / "regular").write_text("")
        build_corpus(tmp_path / "regular", OPTIONS)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"espnet_gmot\[demo\]"):
        build_corpus(tmp_path / "new", OPTIONS)


def test_unknown_voice_is_refused() -> None:
    pytest.importorskip("espeakng_loader")
    with pytest.raises(UserError, match="no voice variant 'm99'"):
        Synthesiser("m99")


def test_run_demo_explains_itself_and_refuses_unknown_options() -> None:
    script = Path(demo_corpus.__file__).parents[2] / "egs2/aishell_gmot/asr1/run_demo.sh"
    told = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "--workdir DIR" in told.stdout
    refused = subprocess.run([script, "--wrokdir", "x"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr == "run_demo.sh: error: --wrokdir: no such option; see --help\n"

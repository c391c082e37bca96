"""The tables that stages 10 and 11 read side by side."""

from pathlib import Path

import pytest
import yaml

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.tables import write_table
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.streams import check_streams, list_unalignable, more_streams
from tests.recipe.corpus import wav_bytes
from tests.recipe.test_format import layout

KEYS = ("u1", "u2", "u3")


def teacher(folder: str) -> list[str]:
    """Options that add a teacher's stream."""
    streams = [f"--{split}_data_path_and_name_and_type '{folder}/{split}/teacher.scp,teacher,kaldi_ark'" for split in
               ("train", "valid")]  # fmt: skip
    return ["--asr_args", " ".join(streams)]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Formatted sets of wav files, each with a teacher's stream."""
    monkeypatch.chdir(tmp_path)
    for split, name in (("train", "train"), ("valid", "dev")):
        folder = Path("dump/raw", name)
        write_table(folder / "wav.scp", {key: f"{name}-{key}.wav" for key in KEYS})
        for key in KEYS:
            Path(f"{name}-{key}.wav").write_bytes(wav_bytes("一二"))
        write_table(folder / "text", dict.fromkeys(KEYS, "一二"))
        (folder / "feats_type").write_text("raw\n")
        (folder / "audio_format").write_text("wav\n")
        write_table(f"my teacher/{split}/teacher.scp", {key: f"teacher.ark:{key}" for key in KEYS})
    return layout(*teacher("my teacher"))


def test_what_belongs_together(plan: Layout) -> None:
    check_streams(plan, audio=True)
    write_table("my teacher/valid/teacher.scp", {"u2": "teacher.ark:5"})
    message = (
        r"^my teacher/valid/teacher\.scp: lacks 2 of the 3 utterances of dump/raw/dev/wav\.scp, the first is u1; run"
    )
    with pytest.raises(UserError, match=message):
        check_streams(plan)
    Path("my teacher/train/teacher.scp").unlink()
    with pytest.raises(UserError, match=r"my teacher/train/teacher\.scp: no such file"):
        check_streams(plan)


def test_wavs_that_this_engine_did_not_format(plan: Layout) -> None:
    Path("dev-u2.wav").write_bytes(Path("dev-u2.wav").read_bytes()[:1000])
    check_streams(plan)
    with pytest.raises(UserError, match=r"dump/raw/dev/wav\.scp: 1 of 3 recordings .* u2: dev-u2\.wav: truncated"):
        check_streams(plan, audio=True)


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        ({"frontend": "default", "encoder_conf": {"input_layer": "conv2d"}}, ["u1", "u2"]),  # 2, 5, 10 frames
        ({"frontend": "default", "frontend_conf": {"hop_length": 64}, "encoder_conf": {"input_layer": "conv2d2"}}, []),
        ({"frontend": "hf_speech", "encoder_conf": {"input_layer": "conv2d"}}, []),
        ({"input_size": 80, "encoder_conf": {"input_layer": "conv2d"}}, []),
    ],
)
def test_tokens_outnumber_frames(
    plan: Layout, config: dict[str, object], bad: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(plan.asr_stats / "logdir/stats.1/config.yaml", yaml.safe_dump({"input_size": None} | config))
    for split in ("train", "valid"):
        shapes = {"u1": "1279", "u2": "2560", "u3": "5120"} if split == "train" else {"u4": "9999"}
        write_table(plan.asr_stats / split / "speech_shape", shapes)
        write_table(plan.asr_stats / split / "text_shape", dict.fromkeys(shapes, "6"))
    assert list_unalignable(plan) == len(bad)
    path = plan.asr_stats / "train/bad_utterances"
    listed = path.read_text() if path.exists() else ""
    assert [line.split()[0] for line in listed.splitlines()] == bad
    assert ("2 of 3 utterances have fewer frames than tokens" in capsys.readouterr().out) is bool(bad)
    assert not bad or "u1 2 frames after subsampling by 4, 6 tokens" in listed


def test_streams_in_asr_args() -> None:
    options = (
        "--max_epoch 2 --train_data_path_and_name_and_type=a,b,npy --train_data_path_and_name_and_type 'c d,e,text'"
    )
    options += " --train_data_path_and_name_and_type x,y,rand_int_3_10 --valid_data_path_and_name_and_type v,w,text"
    assert list(more_streams(options, "train")) == ["a", "c d"]
    assert list(more_streams(options, "valid")) == ["v"]


def test_commas_split_streams() -> None:
    with pytest.raises(UserError, match=r"--dumpdir 'a,b': ESPnet splits data streams at commas"):
        layout("--dumpdir", "a,b")

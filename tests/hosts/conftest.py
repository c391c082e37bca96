"""Tiny ESPnet models of every host, built the way ESPnet builds them: from a configuration."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

TOKENS = ["<blank>", "<unk>", *"今天气很好我们去", "<sos/eos>"]
BLOCK = {"output_size": 16, "attention_heads": 2, "num_blocks": 2, "input_layer": "linear"}
QUIET = {"dropout_rate": 0.0, "positional_dropout_rate": 0.0, "attention_dropout_rate": 0.0}
FEED = {**BLOCK, **QUIET, "linear_units": 16}
GATED = {"cgmlp_linear_units": 16, "cgmlp_conv_kernel": 3}
#: Of ESPnet 202511's encoders: no Zipformer (it has none), nor those that need fairseq or longformer.
ENCODERS: dict[str, dict[str, Any]] = {
    "conformer": {**FEED, "cnn_module_kernel": 3, "rel_pos_type": "latest"},
    "multiconv_conformer": {
        **FEED,
        "cgmlp_linear_units": 16,
        "multicgmlp_kernel_sizes": "3,5",
        "multicgmlp_merge_conv_kernel": 3,
    },
    "contextual_block_conformer": {**FEED, "cnn_module_kernel": 3, "block_size": 0},
    "branchformer": {**BLOCK, **QUIET, **GATED},
    "e_branchformer": {**FEED, **GATED, "merge_conv_kernel": 3},
    "transformer": FEED,
    "whisper": {"whisper_model": "tiny"},
    "rnn": {"num_layers": 1, "hidden_size": 16, "output_size": 16},
}
#: Those that read waveforms, and so need no frontend.
RAW = ("whisper", "torchaudiohubert")
HOSTS: dict[str, dict[str, Any]] = {
    "ctc": {"model_conf": {"ctc_weight": 1.0}},
    "hybrid": {
        "model_conf": {"ctc_weight": 0.3},
        "decoder": "transformer",
        "decoder_conf": {
            "attention_heads": 2,
            "linear_units": 16,
            "num_blocks": 1,
            "dropout_rate": 0.0,
            "positional_dropout_rate": 0.0,
        },
    },
    "transducer": {
        "model_conf": {"ctc_weight": 0.3, "report_cer": False, "report_wer": False},
        "decoder": "transducer",
        "decoder_conf": {"hidden_size": 8, "dropout": 0.0, "dropout_embed": 0.0},
        "joint_net_conf": {"joint_space_size": 8},
    },
}


def tiny_whisper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let openai-whisper load a random model of two blocks, 16 wide."""
    whisper = pytest.importorskip("whisper", reason="encoder: whisper needs openai-whisper")
    size = {"n_mels": 80, "n_audio_ctx": 40, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 2}
    size |= {"n_vocab": 8, "n_text_ctx": 4, "n_text_state": 8, "n_text_head": 1, "n_text_layer": 1}
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**size))
    monkeypatch.setattr(whisper, "load_model", lambda *_, **__: model)
    # ESPnet asks for a constant that releases since large-v3 lack
    monkeypatch.setattr(whisper.audio, "N_MELS", 80, raising=False)


@pytest.fixture
def build(task: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.nn.Module]:
    """A function that builds a model: build(host, encoder, model="gmot", gmot_conf=…, other options)."""

    def build(host: str = "ctc", encoder: str = "conformer", *, gmot_conf: dict | None = None, **more: Any) -> Any:
        torch.manual_seed(3)
        if encoder == "multiconv_conformer" and encoder not in task.encoder_choices.classes:
            pytest.skip(f"this ESPnet has no encoder {encoder} yet")
        if host == "transducer" and "warprnnt_pytorch" not in sys.modules and not find_spec("warprnnt_pytorch"):
            pytest.skip("this ESPnet's transducer needs warprnnt_pytorch")
        if encoder == "whisper":
            tiny_whisper(monkeypatch)
        config = {"token_list": TOKENS, "input_size": 1 if encoder in RAW else 8, "encoder": encoder}
        config |= {"encoder_conf": ENCODERS.get(encoder), "normalize": None, "output_dir": str(tmp_path)}
        config |= {**HOSTS[host], "model": "gmot", **more}
        if gmot_conf is not None:
            config["model_conf"] = {**config["model_conf"], "gmot_conf": gmot_conf}
        path = tmp_path / "train.yaml"
        path.write_text(yaml.safe_dump(config, allow_unicode=True))
        args = task.ASRTask.get_parser().parse_args(["--config", str(path)])
        torch.manual_seed(3)
        model = task.ASRTask.build_model(args)
        model.args = args
        return model

    return build


def batch_of(encoder: str = "conformer") -> dict[str, torch.Tensor]:
    """Two utterances with transcripts and a teacher's features, as ESPnet's collate function gives them.

    20 and 15 frames of features, or waveforms of which Whisper makes as many.
    """
    torch.manual_seed(4)
    speech, teacher = torch.randn(2, 20, 8), torch.randn(2, 4, 12)
    if encoder in RAW:
        speech = torch.randn(2, 6400)
    lengths = [speech.shape[1], speech.shape[1] * 3 // 4]
    speech[1, lengths[1] :], teacher[1, 3:] = 0, 0
    return {
        "speech": speech,
        "speech_lengths": torch.tensor(lengths),
        "text": torch.tensor([[2, 3, 4, 5], [8, 9, 6, -1]]),
        "text_lengths": torch.tensor([4, 3]),
        "teacher": teacher,
        "teacher_lengths": torch.tensor([4, 3]),
    }


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two utterances of features."""
    return batch_of()


@pytest.fixture(scope="session")
def tiny_plm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random character BERT, 12 wide, that knows the token list's characters."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("plm")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TOKENS[2:-1]]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(5)
    BertModel(config).save_pretrained(folder)
    return folder

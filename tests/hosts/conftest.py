"""Tiny ESPnet models of every host, built the way ESPnet builds them: from a configuration."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

TOKENS = ["<blank>", "<unk>", *"今天气很好我们去", "<sos/eos>"]
BLOCK = {"output_size": 16, "attention_heads": 2, "linear_units": 16, "num_blocks": 2, "input_layer": "linear"}
QUIET = {"dropout_rate": 0.0, "positional_dropout_rate": 0.0, "attention_dropout_rate": 0.0}
ENCODERS: dict[str, dict[str, Any]] = {
    "conformer": {**BLOCK, **QUIET, "cnn_module_kernel": 3},
    "e_branchformer": {**BLOCK, **QUIET, "cgmlp_linear_units": 16, "cgmlp_conv_kernel": 3, "merge_conv_kernel": 3},
    "transformer": {**BLOCK, **QUIET},
}
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


@pytest.fixture
def build(task: ModuleType, tmp_path: Path) -> Callable[..., torch.nn.Module]:
    """A function that builds a model: build(host, encoder, model="gmot", gmot_conf=…, other options)."""

    def build(host: str = "ctc", encoder: str = "conformer", *, gmot_conf: dict | None = None, **more: Any) -> Any:
        config = {"token_list": TOKENS, "input_size": 8, "encoder": encoder, "encoder_conf": ENCODERS[encoder]}
        config |= {"normalize": None, "output_dir": str(tmp_path), **HOSTS[host], "model": "gmot", **more}
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


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two utterances of features with transcripts and a teacher's features, as ESPnet's collate function gives them."""
    torch.manual_seed(4)
    speech, teacher = torch.randn(2, 20, 8), torch.randn(2, 4, 12)
    speech[1, 15:], teacher[1, 3:] = 0, 0
    return {
        "speech": speech,
        "speech_lengths": torch.tensor([20, 15]),
        "text": torch.tensor([[2, 3, 4, 5], [8, 9, 6, -1]]),
        "text_lengths": torch.tensor([4, 3]),
        "teacher": teacher,
        "teacher_lengths": torch.tensor([4, 3]),
    }


@pytest.fixture(scope="session")
def tiny_plm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random character BERT, 12 wide, that knows the token list's characters."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("plm")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TOKENS[2:-1]]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(5)
    BertModel(config).save_pretrained(folder)
    return folder

"""Encoders that are not BERT: other special tokens, positions, vocabularies and halves of an encoder-decoder."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from espnet_gmot.errors import UserError
from espnet_gmot.teacher import PLMTeacher
from tests.teacher.conftest import TEXT

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def byte_tokenizer() -> Any:
    """Byte-level BPE without merges, as GPT-2's and RoBERTa's are: a Chinese character is three tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def unigram_tokenizer() -> Any:
    """A sentencepiece-like unigram model as T5's: only ``</s>`` is added, and words begin with a mark."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("天气", -1.0)]
    pieces += [(c, -3.0) for c in sorted(set("".join(TEXT)))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def save(folder: Path, model: Any, tokenizer: Any) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_encoder_of_an_encoder_decoder(tmp_path: Path) -> None:
    config = hf.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    model = save(tmp_path / "t5", hf.T5ForConditionalGeneration(config), unigram_tokenizer())
    teacher = PLMTeacher(model)
    features, lengths = teacher([TEXT[0], "看<unk>龘"])
    # pieces may span characters (天气), and only the end mark's row is dropped
    assert teacher.tokens.prefix == 0 and teacher.tokens.suffix == 1
    assert teacher.width == 16 and lengths[1] >= 3
    assert features.shape == (2, int(lengths.max()), 16) and not features[1, int(lengths[1]) :].any()
    torch.testing.assert_close(features[:1, : int(lengths[0])], teacher(TEXT[:1])[0], atol=1e-5, rtol=0)
    assert teacher.tokens.unknown(["今龘"]) == (0.5, ["龘"])
    assert not any("decoder" in name for name, _ in teacher.encoder.named_parameters())


def test_bytes_are_no_characters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = hf.RobertaConfig(vocab_size=300, max_position_embeddings=20, pad_token_id=1, **SMALL)
    teacher = PLMTeacher(save(tmp_path / "roberta", hf.RobertaModel(config), byte_tokenizer()))
    assert teacher(["hello"])[1].tolist() == [5]
    assert teacher(["a" * 16])[0].shape == (1, 16, 16)
    with pytest.raises(UserError, match=r"has 19 tokens, .* takes 18"):
        teacher(["a" * 17])
    # every character can be spelled in bytes, so none is refused; but this model was hardly trained on any
    assert not teacher.tokens.knows("今") and teacher.tokens.unknown(["hi 今天"]) == (0.0, [])
    assert teacher.tokens.check_language(TEXT, 0.5) == (0.0, [])
    assert "spells 100 % of the transcripts' characters in several bytes" in caplog.text


def merged_byte_tokenizer() -> Any:
    """Byte-level BPE as Qwen's: merges learned from text, nothing around a text, no unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": ["<|endoftext|>"], "show_progress": False}
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, **options))
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3"])
def test_decoder_only_model(tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture) -> None:
    if not hasattr(hf, f"{family}Config"):
        pytest.skip(f"transformers {hf.__version__} has no {family}")
    tokenizer = merged_byte_tokenizer()
    sizes = {**SMALL, "num_key_value_heads": 1, "vocab_size": len(tokenizer), "initializer_range": 0.2}
    config = getattr(hf, f"{family}Config")(**sizes, **({"head_dim": 8} if family == "Qwen3" else {}))
    torch.manual_seed(0)
    model = getattr(hf, f"{family}ForCausalLM")(config)  # a checkpoint with a head, as they are published
    teacher = PLMTeacher(save(tmp_path / family, model, tokenizer), layer=[1, 2])
    texts = [TEXT[0], "今天龘靐", "看<unk>书"]
    features, lengths = teacher(texts)
    pieces = [tokenizer.tokenize(text.replace("<unk>", "\ufffd")) for text in texts]
    assert lengths.tolist() == [len(p) for p in pieces]  # no special tokens
    assert features.shape == (3, max(map(len, pieces)), 32) and teacher.width == 32
    assert teacher.tokens.prefix == teacher.tokens.suffix == 0
    assert len(pieces[0]) < len(TEXT[0]) and len(pieces[1]) > 4  # neither one-to-one: merged words, bytes of rare ones
    for row, length, text in zip(features, lengths, texts, strict=True):
        torch.testing.assert_close(row[:length], teacher([text])[0][0], atol=1e-5, rtol=1e-4)
        assert not row[length:].any()
    # it sees the left context only: what follows changes nothing
    shorter = teacher(["今天"])[0][0]
    torch.testing.assert_close(features[1, : len(shorter)], shorter, atol=1e-5, rtol=1e-4)
    assert teacher.tokens.check_language(TEXT * 40 + ["龘"], 0.5) == (0.0, [])
    assert not [record for record in caplog.records if record.name.startswith("espnet_gmot")]  # transformers may warn


def test_what_reads_no_text_is_refused(tmp_path: Path) -> None:
    config = hf.Wav2Vec2Config(
        **SMALL,
        conv_dim=(8,),
        conv_kernel=(4,),
        conv_stride=(4,),
        num_feat_extract_layers=1,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    model = save(tmp_path / "wav2vec2", hf.Wav2Vec2Model(config), byte_tokenizer())
    with pytest.raises(UserError, match="reads input_values, not text; give a text encoder"):
        PLMTeacher(model)(["hello"])

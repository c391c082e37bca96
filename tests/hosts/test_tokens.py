"""Recognisers and teachers that cut the same text differently: a graph needs no token of the other's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf

from espnet_gmot.hosts.detokenizer import Transcripts
from espnet_gmot.teacher import PLMTeacher
from tests.teacher.test_architectures import SMALL, merged_byte_tokenizer

pytestmark = pytest.mark.espnet
TEXT = ["今天天气很好", "hello world", "我们去看书 good morning", "the weather is good 天气", "明天 hello 看书"]
HOSTS = ["char", "bpe", "word", "word pieces", "bytes"]


def sentencepieces(folder: Path, kind: str) -> Path:
    """A real sentencepiece model, ``unigram`` or ``bpe``, of Latin and Chinese text."""
    from sentencepiece import SentencePieceTrainer

    (folder / "text").write_text("\n".join(TEXT * 20), encoding="utf8")
    options = {"hard_vocab_limit": False, "character_coverage": 1.0, "minloglevel": 2, "model_type": kind}
    prefix = str(folder / "sentencepiece.bpe")
    SentencePieceTrainer.train(input=str(folder / "text"), model_prefix=prefix, vocab_size=60, **options)
    return folder / "sentencepiece.bpe.model"


def word_pieces(folder: Path) -> hf.BertTokenizerFast:
    """A BERT tokenizer that spells English in pieces and Chinese in characters."""
    words = ["hello", "wor", "##ld", "go", "##od", "mor", "##ning", "the", "wea", "##ther", "is"]
    hanzi = sorted({character for text in TEXT for character in text if character > "\u3400"})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *hanzi]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf8")
    return hf.BertTokenizerFast(str(folder / "vocab.txt"))


@pytest.fixture(scope="session")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random XLM-RoBERTa as it is published: its vocabulary is a sentencepiece model."""
    folder = tmp_path_factory.mktemp("xlmr")
    sentencepieces(folder, "unigram")
    torch.manual_seed(5)
    vocabulary = len(hf.XLMRobertaTokenizer.from_pretrained(folder))
    hf.XLMRobertaModel(hf.XLMRobertaConfig(vocab_size=vocabulary, **SMALL)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory, multilingual: str) -> dict[str, str]:
    """Models whose rows are sentencepieces, word pieces, and byte-level pieces."""
    bert, qwen = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("qwen")
    pieces, bytewise = word_pieces(bert), merged_byte_tokenizer()
    hf.BertModel(hf.BertConfig(vocab_size=len(pieces), **SMALL)).save_pretrained(bert)
    hf.Qwen2Model(hf.Qwen2Config(vocab_size=len(bytewise), num_key_value_heads=1, **SMALL)).save_pretrained(qwen)
    pieces.save_pretrained(bert)
    bytewise.save_pretrained(qwen)
    return {"sentencepiece": multilingual, "word pieces": str(bert), "bytes": str(qwen)}


def cut(kind: str, folder: Path) -> tuple[list[str], list[list[str]]]:
    """A token list and all texts in its tokens, by ESPnet's own tokenizers where it has them."""
    from espnet2.text.build_tokenizer import build_tokenizer

    if kind == "bytes":
        tokenizer = merged_byte_tokenizer()
        lines, known = [tokenizer.tokenize(text) for text in TEXT], list(tokenizer.get_vocab())
    elif kind == "word pieces":
        tokenizer = word_pieces(folder)
        lines, known = [tokenizer.tokenize(text) for text in TEXT], list(tokenizer.get_vocab())
    else:
        model = sentencepieces(folder, "bpe") if kind == "bpe" else None
        tokenizer = build_tokenizer(kind, bpemodel=model, space_symbol="<space>")
        lines = [tokenizer.text2tokens(text) for text in TEXT]
        known = sorted({token for line in lines for token in line})
    return ["<blank>", "<unk>", *known, "<sos/eos>"], lines


@pytest.mark.parametrize("kind", HOSTS)
def test_a_transcript_is_read_back_from_its_tokens(task: object, tmp_path: Path, kind: str) -> None:
    tokens, lines = cut(kind, tmp_path)
    read = Transcripts(tokens)
    ids = [torch.tensor([[tokens.index(token) for token in line]]) for line in lines]
    assert [read(row, torch.tensor([row.shape[1]]))[0] for row in ids] == TEXT


@pytest.mark.parametrize("teacher", ["sentencepiece", "word pieces", "bytes"])
@pytest.mark.parametrize("kind", HOSTS)
def test_any_host_learns_from_any_teacher(
    build: Callable, teachers: dict[str, str], tmp_path: Path, kind: str, teacher: str
) -> None:
    """Online, from token ids, it is what the features of the text itself would give."""
    tokens, lines = cut(kind, tmp_path)
    rows = [torch.tensor([tokens.index(token) for token in line]) for line in lines[2:4]]  # each has both scripts
    speech = torch.randn(2, 60, 8)
    batch = {"speech": speech, "speech_lengths": torch.tensor([60, 50])}
    batch["text"] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    batch["text_lengths"] = torch.tensor([len(row) for row in rows])
    features, lengths = PLMTeacher(teachers[teacher])(TEXT[2:4])
    assert (lengths.tolist() == batch["text_lengths"].tolist()) == (kind == teacher)
    options = {"teacher": teachers[teacher], "backend": "torch"}
    losses = []
    for stream in ({}, {"teacher": features, "teacher_lengths": lengths}):
        model = build("hybrid", gmot_conf=dict(options), token_list=tokens)
        loss, stats, _ = model(**{name: value.clone() for name, value in batch.items()}, **stream)
        losses.append(stats["loss_gmot"])
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    torch.testing.assert_close(*losses)


def test_a_multilingual_teacher_reads_both_scripts(multilingual: str) -> None:
    teacher = PLMTeacher(multilingual, max_unknown=0.0)
    assert teacher.tokens.unknown(TEXT) == (0.0, [])
    pieces = teacher.tokens.tokenizer.tokenize(TEXT[2])
    features, lengths = teacher([TEXT[2], "今天 hello"])
    assert lengths[0] == len(pieces) not in (len(TEXT[2]), len(TEXT[2].split()))
    assert features.shape == (2, len(pieces), SMALL["hidden_size"]) and not features[1, int(lengths[1]) :].any()
    torch.testing.assert_close(features[1, : int(lengths[1])], teacher(["今天 hello"])[0][0], atol=1e-5, rtol=1e-4)

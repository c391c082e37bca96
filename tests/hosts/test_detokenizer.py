"""Token ids back into the text that a teacher reads."""

import torch

from espnet_gmot.hosts.detokenizer import UNKNOWN, Transcripts


def read(tokens: list[str], ids: list[int]) -> str:
    return Transcripts(tokens)(torch.tensor([ids + [-1]]), torch.tensor([len(ids)]))[0]


def test_characters_pieces_and_words() -> None:
    chars = ["<blank>", "<unk>", "<space>", "今", "天", "A", "<sos/eos>"]
    assert read(chars, [3, 4, 2, 5]) == "今天 A"
    assert read(chars, [3, 1]) == f"今{UNKNOWN}"
    assert read(["<blank>", "<unk>", "▁hel", "lo", "▁you", "<sos/eos>"], [2, 3, 4]) == "hello you"
    assert read(["<blank>", "<unk>", "hello", "you", "<sos/eos>"], [2, 3, 1]) == f"hello you {UNKNOWN}"
    word_pieces = ["<blank>", "<unk>", "[UNK]", "[CLS]", "今", "天", "hel", "##lo", "<sos/eos>"]
    assert read(word_pieces, [3, 6, 7, 4, 5, 2]) == f"hello 今天 {UNKNOWN}"
    assert read(word_pieces, [7, 6]) == "lo hel"  # a transcript that was cut


def test_symbols_are_nothing_to_read() -> None:
    tokens = ["<blank>", "<unk>", "今", "天", "[laugh]", "<noise>", "<sos/eos>"]
    assert read(tokens, [2, 4, 3, 5]) == "今天"


def test_padding_past_a_length_is_ignored() -> None:
    text = torch.tensor([[2, 3], [3, -1]])
    assert Transcripts(["<blank>", "<unk>", "今", "天"])(text, torch.tensor([2, 1])) == ["今天", "天"]

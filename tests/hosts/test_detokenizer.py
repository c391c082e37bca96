"""Token ids back into the text that a teacher reads."""

import torch

from espnet_gmot.hosts.detokenizer import UNKNOWN, Transcripts


def read(tokens: list[str], ids: list[int], symbols: tuple[str, ...] = ()) -> str:
    return Transcripts(tokens, symbols)(torch.tensor([ids + [-1]]), torch.tensor([len(ids)]))[0]


def test_characters_pieces_and_words() -> None:
    chars = ["<blank>", "<unk>", "<space>", "今", "天", "A", "<sos/eos>"]
    assert read(chars, [3, 4, 2, 5]) == "今天 A"
    assert read(chars, [3, 1]) == f"今{UNKNOWN}"
    assert read(["<blank>", "<unk>", "▁hel", "lo", "▁you", "<sos/eos>"], [2, 3, 4]) == "hello you"
    assert read(["<blank>", "<unk>", "hello", "you", "<sos/eos>"], [2, 3, 1]) == f"hello you {UNKNOWN}"
    word_pieces = ["<blank>", "<unk>", "[UNK]", "[CLS]", "今", "天", "hel", "##lo", "<sos/eos>"]
    assert read(word_pieces, [3, 6, 7, 4, 5, 2]) == f"hello 今天 {UNKNOWN}"
    assert read(word_pieces, [7, 6]) == "lo hel"  # a transcript that was cut


def test_long_tokens_in_a_list_of_characters_are_symbols() -> None:
    tokens = ["<blank>", "<unk>", "今", "天", "[laugh]", "<noise>", "<sos/eos>"]
    assert read(tokens, [2, 4, 3, 5]) == "今天"
    assert read(tokens, [4, 5]) == ""
    tokens = ["<blank>", "<unk>", "今", "天", "NOISE", "<sos/eos>"]
    assert read(tokens, [2, 4, 3], ("NOISE",)) == "今天" and read(tokens, [4, 4], ("NOISE",)) == ""


def test_brackets_make_no_symbol_of_a_word_or_a_piece() -> None:
    words = ["<blank>", "<unk>", "hello", "<b>", "[1]", "<noise>", "<sos/eos>"]
    assert read(words, [3, 2, 4, 5], ("<noise>",)) == "<b> hello [1]"
    pieces = ["<blank>", "<unk>", "▁hel", "lo", "<b>", "<noise>", "</s>", "<sos/eos>"]
    assert read(pieces, [2, 3, 4, 5, 6], ("<noise>",)) == "hello<b>"


def test_bytes_of_rare_characters_are_decoded() -> None:
    tokens = ["<blank>", "<unk>", "▁今", "天", *(f"<0x{byte:02X}>" for byte in range(256)), "<sos/eos>"]
    ids = [2, *(4 + byte for byte in "龘靐".encode()), 3]
    assert read(tokens, ids) == "今龘靐天"
    assert read(tokens, ids[:-2]) == f"今龘{UNKNOWN}"  # a transcript that was cut
    assert read(["<blank>", "<unk>", "hello", "<0xE4>"], [2, 3]) == "hello <0xE4>"  # a word like any other


def test_padding_past_a_length_is_ignored() -> None:
    text = torch.tensor([[2, 3], [3, -1]])
    assert Transcripts(["<blank>", "<unk>", "今", "天"])(text, torch.tensor([2, 1])) == ["今天", "天"]

"""ESPnet's token ids back into the text that a teacher reads."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from espnet_gmot.teacher.cleaning import GONE, Cleaner

#: Stands for a token that the recogniser doesn't know: no vocabulary holds it, so a teacher reads its own [UNK].
UNKNOWN = "\ufffd"
_SPECIAL = {"<blank>": "", "<sos/eos>": "", "<unk>": UNKNOWN, "<space>": " ", "[UNK]": UNKNOWN}
# What tokenizers put around and between texts, by kind of token list.
_SENTENCEPIECE = dict.fromkeys(("<s>", "</s>", "<pad>"), "")
_WORD_PIECE = dict.fromkeys(("[CLS]", "[SEP]", "[PAD]", "[MASK]"), "")
_BYTE = re.compile("<0x([0-9A-F]{2})>")
_BYTE_LEVEL_SPECIAL = re.compile(r"<\|.*\|>|</?s>|<pad>|<mask>")
# Word pieces don't say whether there was a space; between Chinese characters there is none.
_HANZI_GAP = re.compile("(?<=[\u3400-\u9fff\uf900-\ufaff]) (?=[\u3400-\u9fff\uf900-\ufaff])")


class Transcripts:
    """Turns padded token ids into transcripts, for every kind of token list.

    The token list tells its own kind: ``▁`` marks sentencepiece (``bpe``; its byte fallback, ``<0xE4>``, is decoded),
    ``##`` word pieces and the alphabet of all bytes byte-level pieces (``hugging_face``, ``whisper_…``); a list of
    single characters is joined without spaces (``char``); anything else is words, joined with spaces (``word``).
    The tokenizers' own specials are dropped. The text is then cleaned as dump-teacher cleans it
    (:mod:`espnet_gmot.teacher.cleaning`). In a list of characters every longer token in brackets is a non-linguistic
    symbol, since ESPnet's tokenizer makes no other; among words and pieces only those are that the user lists.

    Args:
        token_list: ESPnet's token list.
        symbols: the non-linguistic symbols of ESPnet's ``--non_linguistic_symbols``.
    """

    def __init__(self, token_list: Sequence[str], symbols: Iterable[str] = ()) -> None:
        self.tokens, symbols = list(token_list), set(symbols)
        plain = [token for token in self.tokens if token not in _SPECIAL and token not in symbols]
        self.byte_decoder = _byte_decoder(plain)
        self.pieces = any("▁" in token for token in plain)
        word_pieces = any(token.startswith("##") and len(token) > 2 for token in plain)
        self.word_pieces = word_pieces and not self.pieces
        long = [token for token in plain if len(token) > 1]
        characters = not self.pieces and all(_in_brackets(token) for token in long)
        self.separator = "" if self.pieces or characters else " "
        self.byte_fallback = sum(map(bool, map(_BYTE.fullmatch, plain))) == 256
        self.written = _SPECIAL | (_SENTENCEPIECE if self.pieces else _WORD_PIECE if self.word_pieces else {})
        self.clean = Cleaner(symbols.union(long if characters else ()))
        self.written |= dict.fromkeys(self.clean.symbols, GONE)

    def __call__(self, text: torch.Tensor, lengths: torch.Tensor) -> list[str]:
        """Transcripts of a batch.

        Args:
            text: (B, tokens) token ids; what lies past a length is ignored.
            lengths: (B,).

        Returns:
            B transcripts; empty where there is nothing to read.
        """
        rows = zip(text.tolist(), lengths.tolist(), strict=True)
        return [self.clean(self._join([self.tokens[index] for index in row[:length]])) for row, length in rows]

    def _join(self, tokens: list[str]) -> str:
        words = [word for word in (self.written.get(token, token) for token in tokens) if word]
        if self.byte_decoder is not None:
            return self.byte_decoder.decode([word for word in words if not _BYTE_LEVEL_SPECIAL.fullmatch(word)])
        text = self.separator.join(_joined_bytes(words) if self.byte_fallback else words)
        if self.pieces:
            return text.replace("▁", " ")
        return _HANZI_GAP.sub("", f" {text}".replace(" ##", "")) if self.word_pieces else text


def _in_brackets(token: str) -> bool:
    return (token[0], token[-1]) in (("<", ">"), ("[", "]"), ("(", ")"), ("{", "}"))


def _joined_bytes(pieces: list[str]) -> list[str]:
    """Pieces with every run of byte pieces as its characters; bytes that are none become `UNKNOWN`."""
    joined: list[str] = []
    run = bytearray()
    for piece in [*pieces, ""]:
        if found := _BYTE.fullmatch(piece):
            run.append(int(found[1], 16))
            continue
        joined += [run.decode("utf-8", errors="replace"), piece]
        run.clear()
    return joined


def _byte_decoder(tokens: list[str]) -> Any:
    """What reads byte-level pieces, where the tokens are such: then each of the 256 bytes is one."""
    if "Ġ" not in tokens:
        return None
    from tokenizers import decoders, pre_tokenizers

    return decoders.ByteLevel() if set(tokens).issuperset(pre_tokenizers.ByteLevel.alphabet()) else None

"""ESPnet's token ids back into the text that a teacher reads."""

import re
from collections.abc import Sequence
from typing import Any

import torch

#: Stands for a token that the recogniser doesn't know: no vocabulary holds it, so a teacher reads its own [UNK].
UNKNOWN = "\ufffd"
_SPECIAL = {"<blank>": "", "<sos/eos>": "", "<unk>": UNKNOWN, "<space>": " ", "[UNK]": UNKNOWN}
# Word pieces don't say whether there was a space; between Chinese characters there is none.
_HANZI_GAP = re.compile("(?<=[\u3400-\u9fff\uf900-\ufaff]) (?=[\u3400-\u9fff\uf900-\ufaff])")


class Transcripts:
    """Turns padded token ids into transcripts, for every kind of token list.

    Args:
        token_list: ESPnet's token list, which tells its own kind: ``▁`` marks sentencepiece (``bpe``), ``##`` word
            pieces and the alphabet of all bytes byte-level pieces (``hugging_face``, ``whisper_…``); a list of single
            characters is joined without spaces (``char``); anything else is words, joined with spaces (``word``).
    """

    def __init__(self, token_list: Sequence[str]) -> None:
        self.tokens = list(token_list)
        plain = [token for token in self.tokens if not _is_symbol(token)]
        self.byte_decoder = _byte_decoder(plain)
        self.pieces = any("▁" in token for token in plain)
        self.word_pieces = any(token.startswith("##") and len(token) > 2 for token in plain)
        self.separator = "" if self.pieces or all(len(token) == 1 for token in plain) else " "

    def __call__(self, text: torch.Tensor, lengths: torch.Tensor) -> list[str]:
        """Transcripts of a batch.

        Args:
            text: (B, tokens) token ids; what lies past a length is ignored.
            lengths: (B,).

        Returns:
            B transcripts.
        """
        rows = zip(text.tolist(), lengths.tolist(), strict=True)
        return [self._join([self.tokens[index] for index in row[:length]]) for row, length in rows]

    def _join(self, tokens: list[str]) -> str:
        words = [_SPECIAL.get(token, "" if _is_symbol(token) else token) for token in tokens]
        words = [word for word in words if word]
        if self.byte_decoder is not None:
            return self.byte_decoder.decode(words).strip()
        text = self.separator.join(words)
        if self.pieces:
            text = text.replace("▁", " ")
        elif self.word_pieces:
            text = _HANZI_GAP.sub("", f" {text}".replace(" ##", ""))
        return text.strip()


def _is_symbol(token: str) -> bool:
    """Whether a token says something about the recording, as <noise> or [laugh], and is nothing to read."""
    return len(token) > 2 and (token[0], token[-1]) in (("<", ">"), ("[", "]"))


def _byte_decoder(tokens: list[str]) -> Any:
    """What reads byte-level pieces, where the tokens are such: then each of the 256 bytes is one."""
    if "Ġ" not in tokens:
        return None
    from tokenizers import decoders, pre_tokenizers

    return decoders.ByteLevel() if set(tokens).issuperset(pre_tokenizers.ByteLevel.alphabet()) else None

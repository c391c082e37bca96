"""ESPnet's token ids back into the text that a teacher reads."""

from collections.abc import Sequence

import torch

#: Stands for a token that the recogniser doesn't know: no vocabulary holds it, so a teacher reads its own [UNK].
UNKNOWN = "\ufffd"
_SPECIAL = {"<blank>": "", "<sos/eos>": "", "<unk>": UNKNOWN, "<space>": " "}


class Transcripts:
    """Turns padded token ids into transcripts, for char, bpe and word token lists.

    Args:
        token_list: ESPnet's token list. Pieces that hold sentencepiece's mark are joined at it; a list of single
            characters is joined without spaces; anything else is words, joined with spaces.
    """

    def __init__(self, token_list: Sequence[str]) -> None:
        self.tokens = list(token_list)
        plain = [token for token in self.tokens if not _is_symbol(token)]
        self.pieces = any("▁" in token for token in plain)
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
        text = self.separator.join(word for word in words if word)
        return text.replace("▁", " ").strip() if self.pieces else text.strip()


def _is_symbol(token: str) -> bool:
    """Whether a token says something about the recording, as <noise> or [laugh], and is nothing to read."""
    return len(token) > 2 and (token[0], token[-1]) in (("<", ">"), ("[", "]"))

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
        plain = [token for token in self.tokens if not (token.startswith("<") and token.endswith(">"))]
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
        text = self.separator.join(_SPECIAL.get(token, token) for token in tokens)
        return text.replace("▁", " ").strip() if self.pieces else text.strip()

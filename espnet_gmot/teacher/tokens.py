"""Transcript → token ids of a Hugging Face tokenizer, without losing Latin letters, digits or rare characters."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from espnet_gmot.errors import UserError
from espnet_gmot.transport.masks import valid

_LOG = logging.getLogger(__name__)
# Runs that a WordPiece tokenizer takes as one word: ASCII and accented Latin letters, digits, their full-width forms.
_WORD = re.compile(r"[0-9A-Za-z\u00c0-\u024f\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]+")
# What recognisers write for a token that they do not know. U+FFFD would be dropped by BERT tokenizers.
_UNKNOWN = re.compile("<unk>|\\[UNK\\]|\ufffd")
_PROBE = "a"


_WARNED: set[tuple[str, str]] = set()


def surroundings(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text, such as ([CLS], [SEP]).

    Raises:
        UserError: it also puts them elsewhere.
    """
    inner: list[int] = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    outer: list[int] = tokenizer(_PROBE)["input_ids"]
    for start in range(len(outer) - len(inner), -1, -1):
        if outer[start : start + len(inner)] == inner:
            return outer[:start], outer[start + len(inner) :]
    raise UserError(f"{tokenizer.name_or_path}: its tokenizer mixes special tokens into the text; choose another model")


def is_byte_level(tokenizer: Any) -> bool:
    """Whether a tokenizer spells in bytes (GPT-2, RoBERTa, Qwen): then it lacks no character of any language."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = (getattr(backend, name, None) for name in ("pre_tokenizer", "decoder"))
    return any(part is not None and b"ByteLevel" in part.__getstate__() for part in parts)


def _split(texts: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """How often each Latin word occurs, and each other character; blanks and unknown tokens aside."""
    words: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for text in texts:
        plain = _UNKNOWN.sub(" ", text)
        words.update(_WORD.findall(plain))
        others.update("".join(_WORD.sub(" ", plain).split()))
    return words, others


class TokenMap:
    """Turns transcripts into id sequences with the special tokens the encoder expects around them.

    Chinese characters are one token each in character BERTs; a character that the vocabulary lacks is one unknown
    token. A Latin word or number that the vocabulary cannot spell would be a single unknown token: it is then tried
    in lower case, as half-width letters and letter by letter before that is accepted. A recogniser's unknown tokens
    (``<unk>``, U+FFFD) become the tokenizer's own, or U+FFFD where it spells in bytes.

    Args:
        tokenizer: a transformers tokenizer.
        model: its folder or name, for messages.
        limit: the longest id sequence (special tokens included) that the encoder takes.
    """

    def __init__(self, tokenizer: Any, model: str, limit: int) -> None:
        self.tokenizer, self.model, self.limit = tokenizer, model, limit
        self._words: dict[str, str] = {}
        self._known: dict[str, bool] = {}
        self.byte_level = is_byte_level(tokenizer)
        prefix, suffix = surroundings(tokenizer)
        self.prefix, self.suffix = len(prefix), len(suffix)

    def _ids(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        options = {"return_attention_mask": False, "verbose": False}
        return self.tokenizer(list(texts), add_special_tokens=special, **options)["input_ids"]

    def _is_known(self, text: str) -> bool:
        unknown = self.tokenizer.unk_token_id
        return unknown is None or unknown not in self._ids([text], special=False)[0]

    def _word(self, word: str) -> str:
        if word not in self._words:
            half = unicodedata.normalize("NFKC", word)
            spelled = " ".join(half)
            candidates = (word, half, half.lower(), spelled, spelled.lower())
            self._words[word] = next((c for c in candidates if self._is_known(c)), f" {spelled} ")
        return self._words[word]

    def _prepare(self, text: str) -> str:
        unknown = self.tokenizer.unk_token
        if unknown is None or self.byte_level:  # GPT-2's and Qwen's unknown token would be their end of text
            return _UNKNOWN.sub("\ufffd", text)
        # the markers' own letters are no words of the transcript
        return unknown.join(_WORD.sub(lambda m: self._word(m[0]), part) for part in _UNKNOWN.split(text))

    def encode(self, texts: Sequence[str], utterances: Sequence[str] | None = None) -> list[list[int]]:
        """Id sequences, special tokens included (``prefix`` before and ``suffix`` after the transcript's own).

        Args:
            texts: transcripts.
            utterances: their ids, for messages; by default positions in ``texts``.

        Returns:
            As many sequences; of a text in which the tokenizer finds nothing, the special tokens alone.

        Raises:
            UserError: a transcript is longer than the encoder takes; names the utterance.
        """
        ids = self._ids([self._prepare(text) for text in texts])
        for i, sequence in enumerate(ids):
            name = utterances[i] if utterances is not None else f"number {i} of the batch"
            if len(sequence) > self.limit:
                raise UserError(
                    f"utterance {name}: its transcript has {len(sequence)} tokens, teacher {self.model!r} takes "
                    f"{self.limit}; split or remove the utterance"
                )
        return ids

    def padded(self, sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Id sequences as a batch.

        Args:
            sequences: B of them; may be empty ones.

        Returns:
            (B, L) ids, and (B, L) booleans that are true at each sequence's own; L is at least 1.
        """
        sizes = torch.tensor([len(sequence) for sequence in sequences])
        ids = torch.full((len(sequences), max(1, int(sizes.max()))), self.tokenizer.pad_token_id or 0)
        for row, sequence in zip(ids, sequences, strict=True):
            row[: len(sequence)] = torch.tensor(sequence)
        return ids, valid(sizes.clamp(min=1), ids.shape[1])  # attention over nothing would be NaN

    def cased(self) -> bool:
        """Whether capitals are other tokens than small letters."""
        return self._ids(["A"], special=False) != self._ids(["a"], special=False)

    def knows(self, character: str) -> bool:
        """Whether ``character`` is in the vocabulary as one token: neither unknown nor spelled in bytes."""
        if character not in self._known:
            prepared = self._prepare(character)
            ids = self._ids([prepared], special=False)[0]
            pieces = [p for p in self.tokenizer.convert_ids_to_tokens(ids) if p != "▁"]
            self._known[character] = len(pieces) <= 1 and self.tokenizer.unk_token_id not in ids
        return self._known[character]

    def _lacking(self, texts: Sequence[str]) -> tuple[float, list[str]]:
        """Share of characters that are no token of their own, and these characters, frequent first.

        A Latin word that the vocabulary spells lacks none of its letters, whether or not each is a token by itself.
        """
        words, counts = _split(texts)
        total = sum(len(word) * n for word, n in words.items()) + counts.total()
        for word, n in words.items():
            if not self.byte_level and self._is_known(self._word(word)):
                continue
            counts.update({character: n * times for character, times in Counter(word).items()})
        lacking = Counter({c: n for c, n in counts.items() if not self.knows(c)})
        return lacking.total() / max(1, total), [c for c, _ in lacking.most_common()]

    def _warn_once(self, how: str, share: float, such_as: Sequence[str]) -> None:
        """Say that a teacher spells much; one command asks for each of its sets."""
        told = f"teacher {self.model!r} spells {100 * share:.0f} % of the {how} (such as {' '.join(such_as[:8])}): "
        if (self.model, how) not in _WARNED:
            _WARNED.add((self.model, how))
            _LOG.warning("%swas it trained on their language?", told)

    def _spelled(self, texts: Sequence[str]) -> tuple[float, list[str]]:
        """Share of characters in Latin words of three letters and more that come out letter by letter; such words."""
        words, counts = _split(texts)
        spelled: Counter[str] = Counter()
        for word, n in words.items():
            if len(word) > 2 and word.isalpha():
                ids = self._ids([self._word(word)], special=False)[0]
                pieces = [piece for piece in self.tokenizer.convert_ids_to_tokens(ids) if piece != "▁"]
                spelled[word] += n * (len(pieces) >= len(word))
        total = sum(len(word) * n for word, n in words.items()) + counts.total()
        share = sum(len(word) * n for word, n in spelled.items()) / max(1, total)
        return share, [word for word, n in spelled.most_common() if n]

    def unknown(self, texts: Sequence[str]) -> tuple[float, list[str]]:
        """How much of ``texts`` the vocabulary lacks: nothing, where it spells in bytes.

        Returns:
            The share of unknown characters (0 to 1, blanks not counted), and the unknown characters, frequent first.
        """
        return (0.0, []) if self.byte_level else self._lacking(texts)

    def check_language(self, texts: Sequence[str], most: float) -> tuple[float, list[str]]:
        """`unknown`, refusing a vocabulary that does not fit the language.

        A byte-level vocabulary is never refused: when it spells more than the share ``most`` of the characters in
        several bytes, which a model of another language would do, a warning says so; and so it does where any other
        spells Latin words letter by letter, as a Chinese model's does.

        Raises:
            UserError: more than the share ``most`` of the characters is unknown.
        """
        rate, characters = self._lacking(texts)
        if self.byte_level:
            if rate > most:
                self._warn_once("transcripts' characters in several bytes", rate, characters)
            return 0.0, []
        if rate > most:
            raise UserError(
                f"teacher {self.model!r}: its vocabulary lacks {rate:.0%} of the transcripts' characters "
                f"(such as {' '.join(characters[:8])}; at most {most:.0%} allowed); "
                "choose a teacher of the transcripts' language, for Mandarin such as bert-base-chinese"
            )
        share, words = self._spelled(texts)
        if share > most:
            self._warn_once("transcripts letter by letter", share, words)
        return rate, characters

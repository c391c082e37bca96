"""Text for masked-LM training: sentences, a character vocabulary, length-bucketed batches."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.tables import clean_text, read_lines, read_transcripts
from espnet_gmot.teacher.tokens import surroundings

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Spelt in every vocabulary, so that no Latin word or number is unknown to the teacher.
_ALWAYS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Batches of similar length are drawn from pools of this many batches.
_POOL = 50


def read_sentences(files: Sequence[Path], text_format: str) -> list[str]:
    """Distinct sentences of text files, in order of appearance.

    Repeated sentences (speed-perturbed copies, say) count once, so that held-out ones are truly unseen.

    Args:
        files: UTF-8 files.
        text_format: ``kaldi`` for ``utterance transcript`` lines, ``plain`` for a sentence per line.

    Raises:
        UserError: an unreadable file, or fewer than two sentences in all.
    """
    sentences: dict[str, None] = {}
    for path in files:
        if text_format == "kaldi":
            sentences.update(dict.fromkeys(read_transcripts(path).values()))
        else:
            sentences.update((text, None) for _, line in read_lines(path) if (text := clean_text(line)))
    if len(sentences) < 2:
        names = ", ".join(map(str, files))
        raise UserError(f"--text {names}: {len(sentences)} different sentences; give a text with at least two")
    return list(sentences)


def _bert_tokenizer(tokens: Sequence[str]) -> Any:
    from transformers import BertTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf8")
        # every version of transformers takes a file's name first; the keyword's name and a dict's place changed with 5
        return BertTokenizerFast(str(path), do_lower_case=True, model_max_length=512)


def build_tokenizer(sentences: Iterable[str], min_count: int = 1) -> Any:
    """A lower-casing BERT WordPiece tokenizer whose pieces are single characters.

    Chinese characters and punctuation are tokens of their own. Characters that BERT joins into words (Latin letters,
    digits, kana …) also get a ``##`` piece, hence words are spelt, never unknown.

    Args:
        sentences: text to take the characters from.
        min_count: rarer characters become [UNK].
    """
    backend = _bert_tokenizer(SPECIAL_TOKENS).backend_tokenizer
    counts = Counter(c for s in sentences for c in backend.normalizer.normalize_str(s) if not c.isspace())
    characters = [c for c, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= min_count]
    characters = list(dict.fromkeys([*characters, *_ALWAYS]))
    words = backend.pre_tokenizer.pre_tokenize_str
    joined = [c for c in characters if len(words(backend.normalizer.normalize_str(c + c))) == 1]
    tokens = [*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in joined)]
    return _bert_tokenizer(tokens)


def encode(tokenizer: Any, sentences: Sequence[str], max_length: int) -> list[list[int]]:
    """Id sequences with special tokens; sentences longer than ``max_length`` ids are cut into several sequences.

    Sequences without any known token are left out: nothing could be masked in them.
    """
    special = set(tokenizer.all_special_ids)
    before, after = surroundings(tokenizer)
    body = max_length - len(before) - len(after)
    sequences = []
    for ids in tokenizer(list(sentences), add_special_tokens=False, verbose=False)["input_ids"]:
        for start in range(0, len(ids), body):
            part = ids[start : start + body]
            if not special.issuperset(part):
                sequences.append(before + part + after)
    return sequences


def batches(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """One epoch of index batches in random order, each of similarly long sequences."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = _POOL * batch_size
    parts = []
    for start in range(0, len(order), pool):
        similar = sorted(order[start : start + pool], key=lambda i: lengths[i])
        parts += [similar[i : i + batch_size] for i in range(0, len(similar), batch_size)]
    for i in torch.randperm(len(parts), generator=generator).tolist():
        yield parts[i]


class Masker:
    """Id sequences → a padded batch with BERT's dynamic masking (Devlin et al. 2019: 80 % [MASK], 10 % random).

    Args:
        tokenizer: the tokenizer the ids come from.
        rate: share of tokens to predict, 0 to 1.
    """

    def __init__(self, tokenizer: Any, rate: float) -> None:
        from transformers import DataCollatorForLanguageModeling

        self._special = set(tokenizer.all_special_ids)
        self._collate = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=rate)

    def __call__(self, sequences: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask and labels (-100 where nothing is predicted), each (B, L); at least one label."""
        samples = [
            {
                "input_ids": ids,
                "attention_mask": [1] * len(ids),
                "special_tokens_mask": [i in self._special for i in ids],
            }
            for ids in sequences
        ]
        while True:  # a small batch may draw no token at all, and its mean loss would be NaN
            batch = dict(self._collate([dict(sample) for sample in samples]))
            if bool((batch["labels"] != -100).any()):
                return batch

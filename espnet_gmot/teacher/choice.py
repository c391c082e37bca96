"""What a language model would choose: which of two characters it finds likelier in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from espnet_gmot.errors import UserError
from espnet_gmot.hub import from_pretrained
from espnet_gmot.teacher.plm import PLMTeacher

_BATCH = 64


@dataclass(frozen=True)
class Doubt:
    """A place in a sentence, and two characters for it.

    Attributes:
        before, after: the rest of the sentence.
        ours, theirs: the characters.
    """

    before: str
    after: str
    ours: str
    theirs: str

    @property
    def alone(self) -> "Doubt":
        """The same characters without a sentence: which is the more frequent one."""
        return Doubt("", "", self.ours, self.theirs)


class MaskedChoice:
    """A masked language model (BERT and the like) that chooses between two characters.

    Args:
        model: folder or hub name.
        device: where to compute.

    Raises:
        UserError: the model can't be loaded, or has no mask token or no head that predicts masked tokens.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        from transformers import AutoModelForMaskedLM

        self.tokens = PLMTeacher(model).tokens
        tokenizer = self.tokens.tokenizer
        adapt = f"adapt it first: pretrain-plm --init {model} --text … --out DIR"
        if tokenizer.mask_token_id is None:
            raise UserError(
                f"teacher {model!r}: its tokenizer has no mask token; give a masked language model such as a BERT"
            )
        loaded: Any = from_pretrained(AutoModelForMaskedLM, model, output_loading_info=True)
        self.model, report = loaded
        if report["missing_keys"]:
            raise UserError(f"teacher {model!r}: an encoder without a head that predicts masked tokens; {adapt}")
        self.model.to(device, torch.float32).eval()
        self.device = device

    def ids(self, doubt: Doubt) -> tuple[list[int], int] | None:
        """Token ids of the sentence with a mask in the characters' place, and that place; None where it is too long."""
        tokens = self.tokens
        try:
            before, after = (tokens.encode([text])[0] for text in (doubt.before, doubt.after))
        except UserError:  # one of them is too long by itself
            return None
        head, tail = before[: len(before) - tokens.suffix], after[tokens.prefix :]
        sequence = [*head, int(tokens.tokenizer.mask_token_id), *tail]
        return (sequence, len(head)) if len(sequence) <= tokens.limit else None

    def id_of(self, character: str) -> int | None:
        """A character's token; None where the vocabulary has it not as one."""
        tokenizer = self.tokens.tokenizer
        found = tokenizer.convert_tokens_to_ids(character)
        return None if found in (None, tokenizer.unk_token_id) else int(found)

    @torch.no_grad()
    def __call__(self, doubts: Sequence[Doubt]) -> list[float | None]:
        """How much likelier ours is.

        Args:
            doubts: places and pairs.

        Returns:
            For each log p(ours) - log p(theirs) in nats; None where a character isn't one token, or the sentence is
            longer than the model takes.
        """
        found: list[float | None] = [None] * len(doubts)
        judged = []
        for index, doubt in enumerate(doubts):
            pair, sentence = (self.id_of(doubt.ours), self.id_of(doubt.theirs)), self.ids(doubt)
            if None not in pair and sentence is not None:
                judged.append((index, pair, *sentence))
        judged.sort(key=lambda each: len(each[2]))
        for start in range(0, len(judged), _BATCH):
            part = judged[start : start + _BATCH]
            ids = torch.full((len(part), len(part[-1][2])), self.tokens.tokenizer.pad_token_id or 0)
            mask = torch.zeros_like(ids)
            for row, (_, _, sequence, _) in enumerate(part):
                ids[row, : len(sequence)] = torch.tensor(sequence)
                mask[row, : len(sequence)] = 1
            logits = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).logits
            for row, (index, (ours, theirs), _, place) in enumerate(part):
                found[index] = float(logits[row, place, ours] - logits[row, place, theirs])
        return found

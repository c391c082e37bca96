"""What a masked language model finds likelier in a place of a sentence: one character or another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from espnet_gmot.errors import UserError
from espnet_gmot.hub import TEACHER, check_complete, from_pretrained
from espnet_gmot.teacher.plm import PLMTeacher

# Predictions for the whole vocabulary at every token are what takes memory: so many numbers at a time (400 MB).
_NUMBERS = 10**8


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


class MaskedChoice:
    """A masked language model (BERT and the like) that weighs one character against another.

    Args:
        model: folder or hub name.

    Raises:
        UserError: the model can't be loaded, or doesn't predict masked tokens.
    """

    def __init__(self, model: str) -> None:
        from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM

        teacher = PLMTeacher(model)
        self.tokens = teacher.tokens
        if type(teacher.config) not in MODEL_FOR_MASKED_LM_MAPPING or self.tokens.tokenizer.mask_token_id is None:
            raise UserError(
                f"teacher {model!r}: predicts no masked tokens ({teacher.config.model_type}); give a masked language "
                "model such as a BERT"
            )
        self.model, report = from_pretrained(AutoModelForMaskedLM, model, output_loading_info=True)
        head = {name for name in report["missing_keys"] if not name.startswith(f"{self.model.base_model_prefix}.")}
        check_complete(model, TEACHER, report, lambda name: name in head)
        if head:
            raise UserError(
                f"teacher {model!r}: an encoder without a head that predicts masked tokens; train one: "
                f"pretrain-plm --init {model} --text … --out DIR"
            )
        self.model.float().eval()

    def ids(self, doubt: Doubt) -> tuple[tuple[int, ...], int, int, int] | None:
        """A doubt in token ids: the sentence with a mask, the mask's place, ours and theirs.

        Returns:
            None where the model can't weigh them: a character is unknown or not one token of its own in this sentence,
            or the sentence is longer than the model takes.
        """
        try:
            one, other = self.tokens.encode([f"{doubt.before}{c}{doubt.after}" for c in (doubt.ours, doubt.theirs)])
        except UserError:  # too long
            return None
        places = [place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]]
        if len(one) != len(other) or len(places) != 1:
            return None
        (place,) = places
        ours, theirs = one[place], other[place]
        if self.tokens.tokenizer.unk_token_id in (ours, theirs):
            return None
        one[place] = int(self.tokens.tokenizer.mask_token_id)
        return tuple(one), place, ours, theirs

    @torch.no_grad()
    def __call__(self, doubts: Sequence[Doubt]) -> list[float | None]:
        """How much likelier ours is.

        Args:
            doubts: places and pairs; places that come again are read once.

        Returns:
            For each log p(ours) - log p(theirs) in nats; None where the model can't weigh them, see :meth:`ids`.
        """
        from tqdm import tqdm

        found: list[float | None] = [None] * len(doubts)
        asked: dict[tuple[tuple[int, ...], int], list[tuple[int, int, int]]] = {}
        for index, doubt in enumerate(doubts):
            if (known := self.ids(doubt)) is not None:
                sequence, place, ours, theirs = known
                asked.setdefault((sequence, place), []).append((index, ours, theirs))
        gaps = sorted(asked, key=lambda gap: len(gap[0]))
        with tqdm(total=len(gaps), desc="masked sentences", unit="", leave=False, mininterval=1) as bar:
            while gaps:
                longest = len(gaps[-1][0])
                count = max(1, _NUMBERS // (longest * int(self.model.config.vocab_size)))
                gaps, part = gaps[:-count], gaps[-count:]
                ids, mask = self.tokens.padded([sequence for sequence, _ in part])
                logits = self.model(input_ids=ids, attention_mask=mask.long()).logits
                for row, (sequence, place) in enumerate(part):
                    for index, ours, theirs in asked[sequence, place]:
                        found[index] = float(logits[row, place, ours] - logits[row, place, theirs])
                bar.update(len(part))
        return found

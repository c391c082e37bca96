"""Masked-LM training of a BERT, resumable to the bit.

`transformers.Trainer` was tried instead: no quicker, another model after a resumption, and no shorter, since batches by
length, a loss on masked positions alone, fixed masks for measuring and checkpoints by time would all be overridden.
"""

import logging
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from espnet_gmot import compat
from espnet_gmot.errors import UserError, check_least
from espnet_gmot.files import replacing, writing
from espnet_gmot.hub import from_pretrained, load_tokenizer, quiet_transformers
from espnet_gmot.teacher.corpus import Masker, batches, build_tokenizer, encode

_LOG = logging.getLogger(__name__)
_MOST_HELD_OUT = 1000
LR_SCRATCH, LR_ADAPT = 1e-3, 5e-5
# Options that shape a new model and mean nothing for a given one.
_ONLY_NEW = ("layers", "width", "heads", "vocab_min_count")


@dataclass(frozen=True)
class PretrainOptions:
    """What pretrain-plm trains.

    Attributes:
        init: folder or hub name to adapt; None trains from scratch.
        layers, width, heads: size of a model from scratch.
        vocab_min_count: characters rarer than this are [UNK] (from scratch only).
        epochs: passes over the text.
        steps: updates instead of ``epochs``.
        batch_size: sentences per update.
        lr: peak learning rate, after a linear warm-up and before a linear decay to zero; None: 1e-3 from scratch,
            5e-5 with ``init``.
        warmup: share of the updates spent warming up.
        mask_rate: share of tokens to predict. 0.15 is BERT's; small models and texts learn faster from 0.3 (see Wettig
            et al. 2023, "Should you mask 15% in masked language modeling?").
        max_length: tokens per sequence, special tokens included.
        held_out: share of the sentences kept for measuring.
        seed: of everything random.
    """

    init: str | None = None
    layers: int = 4
    width: int = 192
    heads: int = 4
    vocab_min_count: int = 1
    epochs: int = 10
    steps: int | None = None
    batch_size: int = 32
    lr: float | None = None
    warmup: float = 0.1
    mask_rate: float = 0.3
    max_length: int = 128
    held_out: float = 0.05
    seed: int = 0

    def check(self) -> None:
        """Raise a ``UserError`` for a value out of range."""
        check_least(self, 1, "layers", "width", "heads", "vocab_min_count", "epochs", "steps", "batch_size")
        for name in ("mask_rate", "held_out"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must lie between 0 and 1")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"--warmup {self.warmup}: must lie between 0 and 1")
        if self.lr is not None and not 0 < self.lr < 1:
            raise UserError(f"--lr {self.lr}: must lie between 0 and 1")
        if self.init is not None:
            for name in _ONLY_NEW:
                if getattr(self, name) != getattr(PretrainOptions, name):
                    raise UserError(f"--{name} {getattr(self, name)}: is for new models; remove it or --init")
        if self.width % self.heads:
            raise UserError(f"--width {self.width}: must be a multiple of --heads {self.heads}")
        if not 8 <= self.max_length <= 512:
            raise UserError(f"--max_length {self.max_length}: must lie between 8 and 512")


@dataclass(frozen=True)
class Score:
    """Masked-LM quality: mean cross-entropy in nats per masked token, and the share of them predicted right."""

    loss: float
    accuracy: float


class Pretrainer:
    """One masked-LM training run whose every update is decided by (seed, step), so that it can stop and go on.

    Args:
        options: what to train.
        sentences: the text.
        out: folder for the checkpoint and the finished model.
        device: torch device.
    """

    def __init__(self, options: PretrainOptions, sentences: list[str], out: Path, device: str = "cpu") -> None:
        self.options, self.out, self.device = options, out, device
        self.checkpoint = out / "checkpoint.pt"
        torch.manual_seed(options.seed)
        order = torch.randperm(len(sentences)).tolist()
        held = max(1, min(_MOST_HELD_OUT, round(options.held_out * len(sentences))))
        self.tokenizer, self.model = adapt(options) if options.init else create(options, sentences)
        self.model.to(device, torch.float32)
        self.train_ids = encode(self.tokenizer, [sentences[i] for i in order[held:]], options.max_length)
        self.held_ids = encode(self.tokenizer, [sentences[i] for i in order[:held]], options.max_length)
        if not self.train_ids or not self.held_ids:
            raise UserError("--text: its characters are unknown to the vocabulary; use a lower --vocab_min_count")
        self.masker = Masker(self.tokenizer, options.mask_rate)
        self.epoch_steps = math.ceil(len(self.train_ids) / options.batch_size)
        self.steps = options.steps or options.epochs * self.epoch_steps
        lr = options.lr or (LR_ADAPT if options.init else LR_SCRATCH)
        fused = device != "cpu" or compat.FUSED_ON_CPU
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.01, fused=fused)
        warm = max(1, round(options.warmup * self.steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm))
        )
        self.step = 0

    def _epoch(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + epoch)
        return list(batches([len(ids) for ids in self.train_ids], self.options.batch_size, generator))

    def _forward(self, sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Mean loss, number of right predictions and number of masked tokens."""
        batch = {k: v.to(self.device) for k, v in self.masker(sequences).items()}
        masked = batch["labels"] != -100
        target = batch.pop("labels")[masked]
        if self.model.config.model_type == "bert":  # predict the masked tokens only: the vocabulary is the costly part
            logits = self.model.cls(self.model.bert(**batch).last_hidden_state[masked])
        else:
            logits = self.model(**batch).logits[masked]
        loss = torch.nn.functional.cross_entropy(logits.float(), target)
        return loss, (logits.argmax(-1) == target).sum(), len(target)

    def update(self, indices: list[int]) -> float:
        """One optimiser step on the training sequences ``indices``; returns the loss."""
        torch.manual_seed(self.options.seed * 1_000_003 + self.step)
        self.model.train()
        loss, _, _ = self._forward([self.train_ids[i] for i in indices])
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self) -> Score:
        """Score on the held-out sentences, always with the same tokens masked."""
        self.model.eval()
        torch.manual_seed(self.options.seed)
        loss, right, count = 0.0, 0, 0
        ordered = sorted(self.held_ids, key=len)
        for start in range(0, len(ordered), self.options.batch_size):
            mean, good, masked = self._forward(ordered[start : start + self.options.batch_size])
            loss, right, count = loss + float(mean) * masked, right + int(good), count + masked
        return Score(loss / count, right / count)

    def save_checkpoint(self) -> None:
        """Write all state to ``checkpoint.pt``, in one step."""
        state = {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        with replacing(self.checkpoint, "wb") as handle:
            torch.save(state | {"schedule": self.schedule.state_dict()}, handle)

    def load_checkpoint(self) -> None:
        """Continue from ``checkpoint.pt`` if there is one.

        Raises:
            UserError: the file is truncated.
        """
        if not self.checkpoint.exists():
            return
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        except (RuntimeError, EOFError, OSError) as error:
            raise UserError(
                f"{self.checkpoint}: unreadable ({type(error).__name__}); delete it to start anew"
            ) from error
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]
        _LOG.info("continuing after update %d of %d", self.step, self.steps)

    def train(self, save_seconds: float) -> Score:
        """Train to the end, writing a checkpoint every ``save_seconds``; returns the final held-out score."""
        from tqdm import tqdm

        saved, score = time.monotonic(), None
        bar = tqdm(total=self.steps, initial=self.step, desc="pretrain-plm", unit="update", mininterval=1)
        with bar:
            while self.step < self.steps:
                for indices in self._epoch(self.step // self.epoch_steps)[self.step % self.epoch_steps :]:
                    bar.set_postfix(loss=f"{self.update(indices):.3f}", refresh=False)
                    bar.update()
                    if time.monotonic() - saved >= save_seconds:
                        self.save_checkpoint()
                        saved = time.monotonic()
                    if self.step == self.steps:
                        break
                score = self.evaluate()
                bar.write(
                    f"update {self.step}/{self.steps}: held-out loss {score.loss:.3f}, "
                    f"masked accuracy {score.accuracy:.3f}"
                )
        return score or self.evaluate()  # a run that was killed after its last update has nothing left to train

    def save(self) -> None:
        """Write model, tokenizer and vocab.txt to ``out`` as transformers reads them.

        Raises:
            UserError: the disk is full.
        """
        temporary = self.out / ".saving"
        shutil.rmtree(temporary, ignore_errors=True)
        with writing(self.out), quiet_transformers():
            # transformers before 4.35 wrote pytorch_model.bin by default
            self.model.save_pretrained(temporary, safe_serialization=True)
            self.tokenizer.save_pretrained(temporary)
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        if self.model.config.model_type == "bert":
            (temporary / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8")
        for path in temporary.iterdir():
            os.replace(path, self.out / path.name)
        temporary.rmdir()


def create(options: PretrainOptions, sentences: list[str]) -> tuple[Any, Any]:
    """A new character tokenizer and an untrained BERT masked LM for it."""
    from transformers import BertConfig, BertForMaskedLM

    tokenizer = build_tokenizer(sentences, options.vocab_min_count)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.width,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer, BertForMaskedLM(config)


def adapt(options: PretrainOptions) -> tuple[Any, Any]:
    """Tokenizer and masked LM of ``options.init``; an encoder without a prediction head gets a new one."""
    from transformers import AutoModelForMaskedLM

    tokenizer = load_tokenizer(str(options.init))
    if tokenizer.mask_token is None:
        raise UserError(f"--init {options.init}: its tokenizer has no mask token; give a masked LM such as a BERT")
    model, report = from_pretrained(AutoModelForMaskedLM, str(options.init), output_loading_info=True)
    if report["missing_keys"]:
        _LOG.warning("%s: %d tensors start untrained (no prediction head?)", options.init, len(report["missing_keys"]))
    return tokenizer, model

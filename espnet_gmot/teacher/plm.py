"""The teacher: a frozen pretrained language model that turns transcripts into linguistic node features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from espnet_gmot.errors import UserError
from espnet_gmot.hub import load_config, load_encoder, load_tokenizer
from espnet_gmot.teacher.normalise import FeatureStats, Normaliser
from espnet_gmot.teacher.tokens import TokenMap
from espnet_gmot.transport.masks import valid

# So many characters are seen before the vocabulary is judged: one odd transcript proves nothing.
_LANGUAGE_SAMPLE = 1000


class PLMTeacher:
    """Any Hugging Face text model as a teacher: transcripts → (B, U, D) features, one row per token.

    For character BERTs (bert-base-chinese and the like) a row is a Chinese character; Latin words and numbers become
    the tokenizer's pieces. Decoder-only models (Qwen and the like) work as well: a row is a piece of one or more
    characters, or of part of a rare one, and knows its left context only.

    A plain object on purpose, not a ``torch.nn.Module``: it must never enter a host's ``state_dict``, optimizer, DDP
    or initialisation. Weights are read at the first call, so an object that is only constructed costs nothing; it may
    be pickled, which drops the weights.

    Args:
        model: folder, or hub name (``bert-base-chinese``). A folder never causes network access.
        layer: which hidden states: 0 the embeddings, 1 … N the layers, negative from the end (-1 the last). Several
            are laid side by side: (B, U, layers * D), as multi-layer transfer (HCSA, arXiv 2309.16093) needs them.
        special_tokens: keep the rows of [CLS], [SEP] or their like. The encoder sees these tokens in either case.
        device: where to compute.
        dtype: precision to compute in; the features are float32 in any case.
        max_unknown: largest share of unknown characters (0 to 1) before the vocabulary counts as foreign to the
            language; judged once, on about the first 1000 characters.
        stats: ``teacher_stats.npz``, or the folder dump-teacher left it in: features are centred or whitened by it.
    """

    def __init__(
        self,
        model: str,
        *,
        layer: int | Sequence[int] = -1,
        special_tokens: bool = False,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        max_unknown: float = 0.5,
        stats: str | Path | None = None,
    ) -> None:
        self.model, self.special_tokens = str(model), special_tokens
        self.layer: int | list[int] = layer if isinstance(layer, int) else list(layer)
        self.stats = None if stats is None else str(stats)
        self.device, self.dtype, self.max_unknown = torch.device(device), dtype, max_unknown
        self._config: Any = None
        self._tokens: TokenMap | None = None
        self._encoder: torch.nn.Module | None = None
        self._normaliser: Normaliser | None = None
        self._sample: list[str] | None = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_config": None, "_tokens": None, "_encoder": None, "_normaliser": None}

    def __repr__(self) -> str:
        return f"PLMTeacher({self.model!r}, layer={self.layer}, special_tokens={self.special_tokens})"

    @property
    def layers(self) -> list[int]:
        """The hidden states taken, as a list, counted as they were given."""
        return [self.layer] if isinstance(self.layer, int) else self.layer

    @property
    def config(self) -> Any:
        """The model's configuration, read when first needed.

        Raises:
            UserError: the model cannot be found, has no such layer, or no layer was asked for.
        """
        if self._config is None:
            config = load_config(self.model)
            config = getattr(config, "text_config", None) or config
            depth = config.num_hidden_layers
            asked: list[int | None] = [*self.layers] or [None]
            for layer in asked:
                if layer is not None and -depth - 1 <= layer <= depth:
                    continue
                raise UserError(
                    f"teacher_layer {self.layer}: {self.model!r} has {depth} layers; give 0 (embeddings) to {depth}, "
                    f"or -1 (last) to {-depth - 1}"
                )
            self._config = config
        return self._config

    @property
    def width(self) -> int:
        """The features' columns: D, or layers * D."""
        return int(self.config.hidden_size) * len(self.layers)

    @property
    def tokens(self) -> TokenMap:
        """The way from transcripts to token ids, made when first needed."""
        if self._tokens is None:
            config = self.config  # before the tokenizer: its reader's message on a broken config.json is the clearer
            tokenizer = load_tokenizer(self.model)
            longest = getattr(config, "max_position_embeddings", None) or 10**9
            if config.model_type in {"roberta", "xlm-roberta", "camembert"}:
                longest -= config.pad_token_id + 1  # their positions start after the padding index
            self._tokens = TokenMap(tokenizer, self.model, min(longest, tokenizer.model_max_length))
        return self._tokens

    @property
    def encoder(self) -> torch.nn.Module:
        """The frozen encoder on ``device``, loaded when first needed."""
        if self._encoder is None:
            _ = self.config  # a wrong layer is reported before the weights are read
            self._encoder = load_encoder(self.model).to(self.device, self.dtype)
        return self._encoder

    @property
    def normaliser(self) -> Normaliser | None:
        """What centres or whitens the features, read from ``stats`` when first needed."""
        if self._normaliser is None and self.stats is not None:
            self._normaliser = Normaliser(FeatureStats.load(self.stats))
        return self._normaliser

    def to(self, device: str | torch.device) -> "PLMTeacher":
        """Move to ``device`` (now, or when the weights are loaded); returns itself."""
        device = torch.device(device)
        if device != self.device:
            self.device = device
            if self._encoder is not None:
                self._encoder.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self, texts: Sequence[str], utterances: Sequence[str] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of a batch of transcripts.

        Args:
            texts: B transcripts; one in which the tokenizer finds nothing to read has no row.
            utterances: B utterance ids, only for messages.

        Returns:
            (B, U, D) float32 features (several layers side by side) on ``device``, exactly zero beyond each
            transcript's rows, and (B,) long numbers of rows.

        Raises:
            UserError: a transcript that is too long (named), a vocabulary foreign to the transcripts' language,
                or a model or statistics that cannot be loaded.
        """
        if not texts:
            return torch.zeros(0, 0, self.width, device=self.device), torch.zeros(0, dtype=torch.long)
        sequences = self.tokens.encode(texts, utterances)
        self._watch_language(texts)
        sizes = torch.tensor([len(sequence) for sequence in sequences])
        ids, mask = self.tokens.padded(sequences)
        states = self.encoder(
            input_ids=ids.to(self.device), attention_mask=mask.long().to(self.device), output_hidden_states=True
        ).hidden_states
        first, dropped = 0, 0
        if not self.special_tokens:
            first, dropped = self.tokens.prefix, self.tokens.prefix + self.tokens.suffix
        empty = sizes <= self.tokens.prefix + self.tokens.suffix
        lengths = (sizes - dropped).masked_fill(empty, 0).to(self.device)
        last = first + int(lengths.max())
        rows = torch.cat([states[layer][:, first:last].float() for layer in self.layers], dim=-1)
        if self.normaliser is not None:
            rows = self.normaliser(rows)
        return rows.masked_fill(~valid(lengths, rows.shape[1])[:, :, None], 0.0), lengths

    def _watch_language(self, texts: Sequence[str]) -> None:
        """Judge the vocabulary once, on the first characters that come along."""
        if self._sample is None:
            return
        self._sample.extend(texts)
        if sum(map(len, self._sample)) >= _LANGUAGE_SAMPLE:
            self.tokens.check_language(self._sample, self.max_unknown)
            self._sample = None

"""The teacher: a frozen pretrained language model that turns transcripts into linguistic node features."""

from collections.abc import Sequence
from typing import Any, Self

import torch

from espnet_gmot.errors import UserError
from espnet_gmot.teacher.loading import load_config, load_encoder, load_tokenizer
from espnet_gmot.teacher.tokens import TokenMap

# So many characters are seen before the vocabulary is judged: one odd transcript proves nothing.
_LANGUAGE_SAMPLE = 1000


class PLMTeacher:
    """Any Hugging Face text encoder as a teacher: transcripts → (B, U, D) features, one row per token.

    For character BERTs (bert-base-chinese and the like) a row is a Chinese character; Latin words and numbers become
    the tokenizer's pieces. A plain object on purpose, not a ``torch.nn.Module``: it must never enter a host's
    ``state_dict``, optimizer, DDP or initialisation. Weights are read at the first call, so an object that is only
    constructed costs nothing; it may be pickled, which drops the weights.

    Args:
        model: folder, or hub name (``bert-base-chinese``). A folder never causes network access.
        layer: which hidden states: 0 the embeddings, 1 … N the layers, negative from the end (-1 the last).
        special_tokens: keep the rows of [CLS], [SEP] or their like. The encoder sees these tokens in either case.
        device: where to compute.
        dtype: precision to compute in; the features are float32 in any case.
        max_unknown: largest share of unknown characters (0 to 1) before the vocabulary counts as foreign to the
            language; judged once, on about the first 1000 characters.
    """

    def __init__(
        self,
        model: str,
        *,
        layer: int = -1,
        special_tokens: bool = False,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        max_unknown: float = 0.5,
    ) -> None:
        self.model, self.layer, self.special_tokens = str(model), layer, special_tokens
        self.device, self.dtype, self.max_unknown = torch.device(device), dtype, max_unknown
        self._config: Any = None
        self._tokens: TokenMap | None = None
        self._encoder: torch.nn.Module | None = None
        self._sample: list[str] | None = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_config": None, "_tokens": None, "_encoder": None}

    def __repr__(self) -> str:
        return f"PLMTeacher({self.model!r}, layer={self.layer}, special_tokens={self.special_tokens})"

    @property
    def config(self) -> Any:
        """The model's configuration, read when first needed.

        Raises:
            UserError: the model cannot be found, or has no such layer.
        """
        if self._config is None:
            config = load_config(self.model)
            config = getattr(config, "text_config", None) or config
            depth = config.num_hidden_layers
            if not -depth - 1 <= self.layer <= depth:
                raise UserError(
                    f"teacher_layer {self.layer}: {self.model!r} has {depth} layers; give 0 (embeddings) to {depth}, "
                    f"or -1 (last) to {-depth - 1}"
                )
            self._config = config
        return self._config

    @property
    def width(self) -> int:
        """D, the features' width."""
        return int(self.config.hidden_size)

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

    def to(self, device: str | torch.device) -> Self:
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
            texts: B transcripts; none may be empty.
            utterances: B utterance ids, only for messages.

        Returns:
            (B, U, D) float32 features on ``device``, exactly zero beyond each transcript's rows, and (B,) long
            numbers of rows.

        Raises:
            UserError: an empty or too long transcript (named), a vocabulary foreign to the transcripts' language,
                or a model that cannot be loaded.
        """
        if not texts:
            return torch.zeros(0, 0, self.width, device=self.device), torch.zeros(0, dtype=torch.long)
        sequences = self.tokens.encode(texts, utterances)
        self._watch_language(texts)
        sizes = torch.tensor([len(sequence) for sequence in sequences])
        padding = self.tokens.tokenizer.pad_token_id or 0
        ids = torch.full((len(sequences), int(sizes.max())), padding)
        for row, sequence in zip(ids, sequences, strict=True):
            row[: len(sequence)] = torch.tensor(sequence)
        mask = torch.arange(ids.shape[1]) < sizes[:, None]
        states = self.encoder(
            input_ids=ids.to(self.device), attention_mask=mask.long().to(self.device), output_hidden_states=True
        ).hidden_states[self.layer]
        first, dropped = 0, 0
        if not self.special_tokens:
            first, dropped = self.tokens.prefix, self.tokens.prefix + self.tokens.suffix
        lengths = (sizes - dropped).to(self.device)
        rows = states[:, first : first + int(lengths.max())].float()
        inside = torch.arange(rows.shape[1], device=self.device) < lengths[:, None]
        return rows.masked_fill(~inside[:, :, None], 0.0), lengths

    def _watch_language(self, texts: Sequence[str]) -> None:
        """Judge the vocabulary once, on the first characters that come along."""
        if self._sample is None:
            return
        self._sample.extend(texts)
        if sum(map(len, self._sample)) >= _LANGUAGE_SAMPLE:
            self.tokens.check_language(self._sample, self.max_unknown)
            self._sample = None

"""``model: gmot``: an ESPnet ASR model with the transfer loss beside its own.

The stock forward pass runs unchanged, so every host works that ESPnetASRModel knows: CTC, hybrid CTC/attention and
transducer. The transfer reads what the encoder gave and adds its loss and its statistics.
"""

import inspect
import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.torch_utils.device_funcs import force_gatherable

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.hosts.attention import show_couplings
from espnet_gmot.hosts.detokenizer import Transcripts
from espnet_gmot.hosts.precision import explaining_autocast
from espnet_gmot.hosts.taps import Tap, width
from espnet_gmot.hosts.watch import Watch, not_finite
from espnet_gmot.loss import GMOTLoss, LayeredLoss
from espnet_gmot.teacher.cleaning import read_symbols

_NO_TEACHER = (
    "gmot: no teacher: either run dump-teacher and give asr_train `--train_data_path_and_name_and_type "
    "DIR/teacher.scp,teacher,kaldi_ark` (and the same for valid) with `--allow_variable_data_keys true`, "
    "or set gmot_conf.teacher to a folder or hub name"
)


class ESPnetGMOTASRModel(ESPnetASRModel):
    """ESPnetASRModel that also learns from a pretrained language model (GM-OT, arXiv 2505.13079).

    Args:
        gmot_conf: the options of :class:`espnet_gmot.config.GMOTConfig`. The dict is filled with the resolved
            options, so that the ``config.yaml`` that ESPnet saves holds them all.
        kwargs: everything that ESPnetASRModel takes, under the same names.

    Raises:
        UserError: for bad options, or where the teacher's width can't be known.
    """

    def __init__(self, *, gmot_conf: dict[str, Any] | None = None, **kwargs: Any) -> None:
        config = GMOTConfig.from_dict(gmot_conf)
        super().__init__(**kwargs)
        if config.transfers and config.teacher_width is None:
            config = GMOTConfig.from_dict({**config.to_dict(), "teacher_width": _teacher_width(config)})
        if gmot_conf is not None:
            for old in gmot_conf.keys() - config.to_dict().keys():
                del gmot_conf[old]
            gmot_conf.update(config.to_dict())
        logging.info(f"gmot_conf: {config}")
        self.gmot_config = config
        self.gmot: GMOTLoss | LayeredLoss | None = None
        if config.transfers:
            # the CTC head is there whatever the host, and as wide as what `encode` gives
            widths = [width(self, place, kwargs["ctc"].ctc_lo.in_features) for place in config.taps]
            self.gmot = LayeredLoss(config, widths) if isinstance(config.tap, list) else GMOTLoss(config, widths[0])
            show_couplings(self.gmot)
            if config.residual:
                if self.ctc is None:
                    raise UserError("gmot_conf: residual: true needs a CTC head, but ctc_weight is 0")
                # every use of the head goes through its linear map, in training and in decoding; a bound method, which
                # a copy of the model (moving averages make one) binds to the copy
                self.ctc.ctc_lo.register_forward_pre_hook(self._add_residual)
        #: ESPnet's ``--non_linguistic_symbols``, a file or the symbols: no online teacher reads them
        self.symbols: str | Path | Iterable[str] | None = None
        # A PLMTeacher is no torch module, so it stays outside state_dict, DDP, init and the optimizer.
        # It loads in the first step that needs it, never for statistics or decoding.
        self.teacher: Any = None
        self._encoded: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        self.watch = Watch()

    def forward(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        teacher: torch.Tensor | None = None,
        teacher_lengths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | None], torch.Tensor]:
        """ESPnetASRModel's forward, plus the transfer loss.

        Args:
            speech: (B, samples) or (B, frames, width).
            speech_lengths: (B,).
            text: (B, tokens) token ids, padded with -1.
            text_lengths: (B,).
            teacher: (B, U, D) the PLM's features, zero-padded, where they come as a data stream.
            teacher_lengths: (B,) their lengths U.
            kwargs: whatever else ESPnet's trainer passes; ``utt_id`` names utterances in messages.

        Returns:
            loss (1,), stats, weight (1,), as ESPnet's trainer wants them.

        Raises:
            UserError: where neither a data stream nor an online teacher gives features, and where the CPU can't
                compute the model in autocast's precision.
        """
        if self.gmot is None:
            with explaining_autocast():
                return super().forward(speech, speech_lengths, text, text_lengths, **kwargs)
        taps = {name: Tap(self, name) for name in self.gmot_config.taps if name != "encoder"}
        self._encoded = []
        try:
            with explaining_autocast(), ExitStack() as hooks:
                for tap in taps.values():
                    hooks.enter_context(tap)
                loss, stats, weight = super().forward(speech, speech_lengths, text, text_lengths, **kwargs)
            encoded, lengths = self._encoded[0]
        finally:
            self._encoded = None
        weights = self._speech_probability(encoded) if self.gmot_config.frame_weights == "blank" else None
        if teacher is None:
            teacher, teacher_lengths = self._ask_teacher(text, text_lengths, encoded.device, kwargs.get("utt_id"))
        if teacher_lengths is None:
            raise UserError("gmot: the teacher's features came without teacher_lengths")
        # an utterance without anything to read has no row, or in archives one of zeros: it takes no part
        silent = ~(teacher != 0).flatten(1).any(1)
        teacher_lengths = teacher_lengths.masked_fill(silent, 0)
        features = [taps[name].features() if name in taps else (encoded, lengths) for name in self.gmot_config.taps]
        if weights is not None and any(nodes.shape[:2] != weights.shape for nodes, _ in features):
            raise UserError(
                f"gmot_conf: frame_weights: blank weighs what the encoder gives, but tap: {self.gmot_config.tap} has "
                "another number of frames: use uniform"
            )
        if isinstance(self.gmot, LayeredLoss):
            transfer, more = self.gmot(features, teacher, teacher_lengths, weights)
        else:
            transfer, more = self.gmot(*features[0], teacher, teacher_lengths, weights)
        odd = {"speech": not_finite(speech), "encoder": not_finite(encoded), "teacher": not_finite(teacher)}
        self.watch.look(kwargs.get("utt_id"), {**odd, "transfer": not_finite(self.gmot.values), "silent": silent})
        loss = loss + transfer.reshape(1)  # of one shape, a half precision loss is raised to the transfer's
        stats.update(more, loss=loss.detach().clone())  # ESPnet's trainer divides the loss by accum_grad in place
        return force_gatherable((loss, stats, weight), loss.device)

    def encode(self, speech: torch.Tensor, speech_lengths: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """ESPnetASRModel's encode; in a forward pass, what it gives is kept for the transfer."""
        encoded, lengths = super().encode(speech, speech_lengths)
        if self._encoded is not None:
            self._encoded.append((encoded[0] if isinstance(encoded, tuple) else encoded, lengths))
        return encoded, lengths

    def _add_residual(self, _: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """What the CTC head reads: the encoder's output plus what the adapter says of it, mapped back."""
        assert isinstance(self.gmot, GMOTLoss), "residual: true goes with one tap"
        return (self.gmot.residual(inputs[0]),)

    def _speech_probability(self, encoded: torch.Tensor) -> torch.Tensor:
        """(B, T) 1 - p(blank) of the CTC head, detached: how much each frame says."""
        if self.ctc is None:
            raise UserError("gmot_conf: frame_weights: 'blank' needs a CTC head, but ctc_weight is 0: use uniform")
        head = self.ctc.ctc_lo
        # 1 - p loses its digits where a frame is surely silent, in half precision almost everywhere
        with torch.no_grad(), torch.autocast(encoded.device.type, enabled=False):
            log_probs = head(encoded.to(head.weight.dtype)).log_softmax(-1)
            log_probs[..., self.blank_id] = -torch.inf
            return log_probs.logsumexp(-1).exp()

    def _ask_teacher(
        self, text: torch.Tensor, text_lengths: torch.Tensor, device: torch.device, utterances: Sequence[str] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The online teacher's features (B, U, D) of the transcripts and their lengths (B,); U is at least 1."""
        if self.gmot_config.teacher is None:
            raise UserError(_NO_TEACHER)
        if self.teacher is None:
            from espnet_gmot.teacher.plm import PLMTeacher

            config = self.gmot_config
            self.teacher = PLMTeacher(
                self.gmot_config.teacher,
                layer=config.teacher_layer,
                special_tokens=config.special_tokens,
                stats=config.teacher_stats,
            )
        self.teacher.to(device)
        with torch.autocast(device.type, enabled=False):  # as precise as features computed once
            features, lengths = self.teacher(self.transcripts(text, text_lengths), utterances)
        if features.shape[1] == 0:
            features = features.new_zeros(len(features), 1, features.shape[2])
        return features.to(device), lengths.to(device)

    @cached_property
    def transcripts(self) -> Transcripts:
        """What makes an online teacher's transcripts of token ids; read when first needed, as decoding never does.

        Raises:
            UserError: the file of :attr:`symbols` is missing.
        """
        symbols = self.symbols
        if isinstance(symbols, (str, Path)):
            symbols = read_symbols(symbols) if str(symbols) not in ("", "none") else ()
        return Transcripts(self.token_list, symbols or ())


def _teacher_width(config: GMOTConfig) -> int:
    """Columns of the online teacher's features, read from its configuration alone."""
    if config.teacher is None:
        raise UserError(
            "gmot_conf: teacher_width is missing: set it to the 'width' in the teacher.json that dump-teacher wrote, "
            "or set gmot_conf.teacher to a folder or hub name"
        )
    from espnet_gmot.teacher.plm import PLMTeacher

    return PLMTeacher(config.teacher, layer=config.teacher_layer).width


def _signature() -> inspect.Signature:
    """ESPnetASRModel's options and ours: ESPnet reads defaults for `config.yaml` from a class's signature."""
    stock = inspect.signature(ESPnetASRModel).parameters
    ours = inspect.Parameter("gmot_conf", inspect.Parameter.KEYWORD_ONLY, default=None)
    return inspect.Signature([*stock.values(), ours])


ESPnetGMOTASRModel.__signature__ = _signature()

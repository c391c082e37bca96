"""Couplings of chosen utterances for the page: observed in a trained experiment, and at the start of its training."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from espnet_gmot.errors import UserError
from espnet_gmot.report.align import Span, coupling_spans, ctc_spans
from espnet_gmot.report.cer import written
from espnet_gmot.report.pictures import Coupling

if TYPE_CHECKING:
    from espnet_gmot.hosts.observe import Coupled, Observation, Observer

_LOG = logging.getLogger(__name__)
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def observe(
    system: str,
    exp: Path,
    directory: Path,
    utterances: Sequence[str],
    truth: Mapping[str, Sequence[Span]],
    *,
    model_file: str | None = None,
    frame_shift: float | None = None,
) -> list[Coupling]:
    """What a gmot experiment makes of utterances: one coupling for each and for each of its taps.

    Args:
        system: name on the page.
        exp: the experiment.
        directory: data directory with the utterances.
        utterances: their names.
        truth: true spans by utterance, where they are known.
        model_file, frame_shift: see :class:`~espnet_gmot.hosts.observe.Observer`.
    """
    from espnet_gmot.hosts.observe import Observer

    trained, start = Observer(exp, model_file), _start(Observer, exp)
    if start:
        start.centre_as(trained)
    found = []
    for name in utterances:
        seen = trained.recorded(directory, name, frame_shift)
        before: Sequence[Coupled | None] = [None] * len(seen.couplings)
        if start:
            before = start.recorded(directory, name, frame_shift).couplings
        found += [
            _coupling(
                system if len(seen.couplings) == 1 else f"{system}, {now.place}", seen, now, then, truth.get(name)
            )
            for now, then in zip(seen.couplings, before, strict=True)
        ]
    return found


def _start(observer: "type[Observer]", exp: Path) -> "Observer | None":
    """The experiment before its training; None, with a warning, where that isn't to be had any more."""
    try:
        return observer(exp, initial=True)
    except UserError as error:
        _LOG.warning("%s; the page goes without its edges before training", error)
        return None


def _coupling(
    system: str, seen: "Observation", now: "Coupled", then: "Coupled | None", spoken: Sequence[Span] | None
) -> Coupling:
    """One coupling as plain arrays; ``then`` is the same at the start of training, where that is known."""
    ctc = None
    if seen.log_probs is not None and len(seen.labels) == len(seen.tokens):
        ctc = ctc_spans(seen.log_probs, seen.labels, seen.pieces, seen.seconds)
    transported = now.loss.pooling is None
    return Coupling(
        system=system,
        utterance=seen.utterance,
        text=written(seen.pieces),
        tokens=seen.tokens,
        seconds=seen.seconds,
        speech=seen.speech,
        rate=seen.rate,
        plan=now.plan,
        by_alpha={alpha: now.coupled_by(alpha) for alpha in ALPHAS} if transported else {},
        path=coupling_spans(now.plan, seen.tokens, seen.seconds),
        ctc=ctc,
        truth=spoken if spoken and len(spoken) == len(seen.tokens) else None,
        log_probs=seen.log_probs,
        edges=edges(now),
        before=edges(then) if then else None,
        prior=now.loss.config.prior != "none",
    )


def edges(coupled: "Coupled") -> tuple[np.ndarray, np.ndarray]:
    """The edge matrices (T, T) and (U, U) of both graphs, as the transfer weighs them."""
    with torch.no_grad():
        both = coupled.loss.edges(coupled.acoustic, coupled.linguistic)
        acoustic, linguistic = (each.dense()[0].double().numpy() for each in both)
    return acoustic, linguistic

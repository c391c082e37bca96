"""Names the utterances that bring something odd into training, once each."""

import logging
from collections.abc import Mapping, Sequence

import torch

from espnet_gmot.hosts.checkpoints import first_rank

_MOST_NAMES = 20  # of a kind; from then on a count at every doubling

#: What can be odd about an utterance; of those that aren't finite causes come before effects, which a batch
#: normalisation spreads over the batch: only the first that a batch has is told.
KINDS = {
    "speech": "its speech holds NaN or Inf: mend or remove it",
    "teacher": "its teacher features hold NaN or Inf: run dump-teacher again, or choose another teacher",
    "encoder": "the encoder's output for it holds NaN or Inf",
    "transfer": "its transfer loss is NaN or Inf although speech and teacher are finite",
    "silent": "the teacher finds nothing to read in its transcript: no transfer for it",
}


class Watch:
    """Remembers which utterances of each kind were named; never alters what it looks at."""

    def __init__(self) -> None:
        self.named: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self._waiting: tuple[list[str], torch.Tensor] | None = None

    def look(self, utterances: Sequence[str] | None, odd: Mapping[str, torch.Tensor]) -> None:
        """Take note of a batch; what is on a device that runs ahead is read at the next call.

        Args:
            utterances: B ids, or None where the trainer gives none.
            odd: for each of :data:`KINDS`, (B,) whether the utterance is of that kind.
        """
        self.report()
        table = torch.stack([odd[kind] for kind in KINDS])
        names = list(utterances or (f"number {index} of the batch" for index in range(table.shape[1])))
        self._waiting = names, table
        if table.device.type == "cpu":
            self.report()

    def report(self) -> None:
        """Name what the last batch brought."""
        if self._waiting is None:
            return
        (names, table), self._waiting = self._waiting, None
        if not bool(table.any()):
            return
        *causes, silent = zip(KINDS, table.tolist(), strict=True)
        cause = next((found for found in causes if any(found[1])), None)
        for kind, odd in [silent] if cause is None else [cause, silent]:
            for name in [name for name, is_odd in zip(names, odd, strict=True) if is_odd]:
                if name not in self.named[kind]:
                    self._name(kind, name)

    def _name(self, kind: str, utterance: str) -> None:
        named = self.named[kind]
        named.add(utterance)
        count = len(named)
        # of several processes' logs ESPnet shows errors alone, but for the first one's
        level = logging.WARNING if first_rank() else logging.ERROR
        if count <= _MOST_NAMES:
            logging.log(level, f"gmot: utterance {utterance}: {KINDS[kind]} ({count} such so far)")
        elif count & (count - 1) == 0:
            logging.log(level, f"gmot: {count} such utterances so far, {utterance} the last: {KINDS[kind]}")


def not_finite(values: torch.Tensor) -> torch.Tensor:
    """(B,) whether a row of (B, …) holds NaN or Inf."""
    return ~torch.isfinite(values).reshape(len(values), -1).all(1)

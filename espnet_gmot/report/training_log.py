"""ESPnet's training log, read back: what every epoch gave and how long it took, over all resumptions."""

import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

_LINE = re.compile(
    r"^\[[^\]]*\] (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) \(\w+:\d+\) INFO: "
    r"(\d+)(?:/(\d+)epoch started|epoch results: (.*))"
)
_VALUE = re.compile(r"(\w+)=(-?(?:nan|inf|\d+\.?\d*(?:e[-+]?\d+)?))(?=,|$|\s)")


@dataclass(frozen=True)
class Epoch:
    """One finished epoch.

    Attributes:
        number: from 1 on.
        seconds: wall clock from its start to its results, validation included.
        steps: batches since the start of training.
        train, valid: ESPnet's means over the epoch by name, e.g. ``valid["loss_ctc"]``.
    """

    number: int
    seconds: float
    steps: int
    train: dict[str, float] = field(default_factory=dict)
    valid: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingLog:
    """What the logs of an experiment say.

    Attributes:
        epochs: the finished ones, in order; of an epoch that was run twice, the later run.
        max_epoch: the last epoch that was asked for; 0 if none has started.
        stopped: whether ESPnet's early stopping (``patience``) ended the training.
    """

    epochs: list[Epoch]
    max_epoch: int
    stopped: bool = False

    @property
    def finished(self) -> bool:
        """Whether the last epoch has been, or none needed to be; true without any log."""
        return self.stopped or self.max_epoch == 0 or (bool(self.epochs) and self.epochs[-1].number >= self.max_epoch)

    @property
    def seconds(self) -> float:
        """Wall clock of all finished epochs."""
        return sum(epoch.seconds for epoch in self.epochs)


def read_training_log(exp: str | Path) -> TrainingLog:
    """Read ``exp``'s train.log and the earlier train.1.log, train.2.log … (the oldest); none is no error."""
    epochs: dict[int, Epoch] = {}
    started: dict[int, datetime] = {}
    max_epoch, stopped = 0, False
    for path in _oldest_first(Path(exp)):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                found = _LINE.match(line) if "epoch" in line else None
                if not found:
                    stopped = stopped or "[Early stopping]" in line
                    continue
                try:
                    time = datetime.strptime(f"{found[1]}.{found[2]}", "%Y-%m-%d %H:%M:%S.%f")
                except ValueError:
                    continue  # no such day: a line that was cut or overwritten
                number = int(found[3])
                if found[4]:
                    started[number], max_epoch, stopped = time, int(found[4]), False
                else:
                    seconds = (time - started.get(number, time)).total_seconds()
                    epochs[number] = _epoch(number, seconds, found[5])
    return TrainingLog([epochs[number] for number in sorted(epochs)], max_epoch, stopped)


def _oldest_first(exp: Path) -> list[Path]:
    """All logs of an experiment."""
    earlier = {
        int(found[1]): path for path in exp.glob("train.*.log") if (found := re.search(r"\.(\d+)\.log$", str(path)))
    }
    logs = [earlier[number] for number in sorted(earlier, reverse=True)]
    return logs + [path for path in [exp / "train.log"] if path.is_file()]


def _epoch(number: int, seconds: float, results: str) -> Epoch:
    parts = {}
    for name, text in re.findall(r"\[(\w+)\] (.*?)(?=, \[\w+\] |$)", results):
        text = re.sub(r"\btime=[^=]*?(?=, \w+=|$)", "", text)  # in words: 1 minute and 2.3 seconds
        parts[name] = {key: float(value) for key, value in _VALUE.findall(text)}
    train, valid = parts.get("train", {}), parts.get("valid", {})
    steps = train.get("total_count", 0)
    return Epoch(number, seconds, int(steps) if math.isfinite(steps) else 0, train, valid)

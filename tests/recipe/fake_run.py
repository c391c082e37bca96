"""Stands in for run.sh in the tests of `compare`: the folders and logs of its stages, without any training.

Environment: FAKE_CALLS, a file that gets a line for each call; FAKE_EPOCH, seconds of an epoch; FAKE_FAIL, the asr_tag
of a cell that fails; FAKE_SAID, what it says then.
"""

import datetime
import json
import os
import re
import sys
import time
from pathlib import Path

REFERENCE = {"S1-u1": "今 天 好", "S1-u2": "你 好 吗", "S2-u3": "我 们"}


def main(argv: list[str]) -> None:
    """Do what the stages in ``argv`` would leave behind."""
    options = {name.removeprefix("--"): value for name, value in zip(argv[::2], argv[1::2], strict=True)}
    shown = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    with open(os.environ["FAKE_CALLS"], "a") as calls:
        calls.write(json.dumps([options, shown]) + "\n")
    work, first, last = Path(options["workdir"]), int(options["stage"]), int(options["stop_stage"])
    if first <= 10:
        for name in (options["valid_set"], *options["test_sets"].split()):
            write(work / "data" / name / "text", "u1 今天好\n")
        write(work / "exp/asr_stats_raw/train/speech_shape", os.environ.get("FAKE_SHAPE", "u1 9,80") + "\n")
        if "teacher" in options:  # a stream like others, to stage 10
            write(work / "exp/asr_stats_raw/train/teacher_shape", "u1 4,384\n")
    exp = work / "exp" / f"asr_{options['asr_tag']}"
    if first <= 11 <= last:
        write(exp / "config.yaml", "token_list: [今]\n")
        given = re.search(r"max_epoch:? (\d+)", options["asr_args"] + Path(options["asr_config"]).read_text("utf-8"))
        train(exp, int(given[1]))
    if os.environ.get("FAKE_FAIL") == options["asr_tag"] and last > 10:
        sys.exit(f"run.sh: error: {os.environ.get('FAKE_SAID', 'no more ink')}\nand then some")
    if last >= 13:
        for name in options["test_sets"].split():
            folder = "org/" * (name == options["valid_set"]) + name
            # the seed says how many characters are left out
            wrong = int(re.search(r"--seed (\d+)", options["asr_args"])[1])
            texts = REFERENCE | {"S1-u1": REFERENCE["S1-u1"][2 * wrong :]}
            for file, sentences in (("ref.trn", REFERENCE), ("hyp.trn", texts)):
                lines = "".join(f"{text}\t({key})\n" for key, text in sentences.items())
                write(exp / "decode" / folder / "score_cer" / file, lines)
            write(exp / "decode" / folder / "score_cer/result.txt", "nothing that has counts\n")


def train(exp: Path, epochs: int) -> None:
    """Continue after the last epoch, as ESPnet does."""
    log = exp / "train.log"
    done = log.read_text().count("epoch results") if log.is_file() else 0
    for epoch in range(done + 1, epochs + 1):
        say(log, f"{epoch}/{epochs}epoch started")
        time.sleep(float(os.environ.get("FAKE_EPOCH", "0")))
        results = f"[train] loss=3.5, time=1 minute and 2 seconds, total_count={5 * epoch}, [valid] loss=2"
        say(log, f"{epoch}epoch results: {results}")


def say(log: Path, text: str) -> None:
    """Add a line to ESPnet's log."""
    with log.open("a") as lines:
        lines.write(f"[vm] {datetime.datetime.now():%Y-%m-%d %H:%M:%S},000 (trainer:1) INFO: {text}\n")


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])

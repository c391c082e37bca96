"""Do time per utterance and memory stay as they are from 1,000 to 100,000 utterances?

python3 benchmarks/load.py [--sizes 1000 10000 100000] [--folder DIR] [--out docs/load.json]

Each stage is a process of its own: data preparation, stages 3 to 5, a tiny teacher's archive, the check of the streams
before stage 10, and one walk through ESPnet's dataset. Recordings are hard links to a few wavs of 0.15 s, transcripts
are all different. Counted are the seconds of the stage itself, without imports, by the clock and of all processors
(which a busy machine leaves nearly as they are), and the peak of the resident memory of its process. A rerun
keeps what --folder holds.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

if __name__ == "__main__":
    from provenance import ROOT, provenance
else:
    from benchmarks.provenance import ROOT, provenance

SETS = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test"]
_HANZI = [chr(0x4E00 + index) for index in range(2000)]
_PER_SPEAKER, _WAVS = 250, 8  # file systems bound the links of a file, often at 65,000


def corpus(folder: Path, count: int) -> None:
    """AISHELL-1's tree with ``count`` training utterances, and 50 of dev and of test."""
    rng, draw = np.random.default_rng(0), random.Random(0)
    lines = []
    for split, number in (("train", count), ("dev", 50), ("test", 50)):
        wavs: list[Path] = []
        for index in range(number):
            place = folder / f"data_aishell/wav/{split}/S{split}{index // _PER_SPEAKER:04d}"
            path = place / f"BAC009{place.name}W{index:06d}.wav"
            place.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if index < _WAVS:
                soundfile.write(path, 0.1 * rng.standard_normal(2400), 16000, subtype="PCM_16")
                wavs.append(path)
            else:
                os.link(wavs[index % _WAVS], path)
            lines.append(f"{path.stem} {''.join(draw.choices(_HANZI, k=draw.randint(3, 7)))}\n")
    transcript = folder / "data_aishell/transcript/aishell_transcript_v0.8.txt"
    transcript.parent.mkdir(parents=True, exist_ok=True)
    transcript.write_text("".join(lines), encoding="utf8")


def prepare() -> None:
    """Stage 1."""
    from espnet_gmot.corpora import aishell

    aishell.main(["--data", "data_aishell"])


def _recipe(*stages: int) -> None:
    from espnet_gmot.recipe import cli, options
    from espnet_gmot.recipe.layout import Layout

    layout = Layout(
        options.parse([*SETS, "--nj", "8", "--lang", "zh", "--token_type", "char", "--audio_format", "flac.ark"])
    )
    for stage in stages:
        cli.STAGES[stage][1](layout)


def form() -> None:
    """Stage 3."""
    _recipe(3)


def tokens() -> None:
    """Stages 4 and 5."""
    _recipe(4, 5)


def teacher() -> None:
    """dump-teacher, with the tiny model that :func:`tiny` made."""
    from espnet_gmot.teacher import dump

    for name in ("train", "dev"):
        dump.main(["--model", "plm", "--text", f"dump/raw/{name}/text", "--out", f"dump/raw/{name}/teacher"])


def check() -> None:
    """What is checked before stages 10 and 11."""
    from espnet_gmot.recipe import options
    from espnet_gmot.recipe.layout import Layout
    from espnet_gmot.recipe.streams import check_streams

    stream = "--train_data_path_and_name_and_type dump/raw/train/teacher/teacher.scp,teacher,kaldi_ark"
    check_streams(Layout(options.parse([*SETS, "--asr_args", stream])), audio=True)


def walk() -> None:
    """Every utterance of ESPnet's dataset: speech, text and teacher."""
    from espnet2.train.dataset import ESPnetDataset
    from espnet2.train.preprocessor import CommonPreprocessor

    tokens_of = CommonPreprocessor(train=True, token_type="char", token_list="data/zh_token_list/char/tokens.txt")
    data = ESPnetDataset(
        [
            ("dump/raw/train/wav.scp", "speech", "kaldi_ark"),
            ("dump/raw/train/text", "text", "text"),
            ("dump/raw/train/teacher/teacher.scp", "teacher", "kaldi_ark"),
        ],
        preprocess=tokens_of,
    )
    for key in Path("dump/raw/train/text").read_text(encoding="utf8").splitlines():
        data[key.split(maxsplit=1)[0]]


STAGES: dict[str, Callable[[], None]] = {
    "prepare-data": prepare,
    "format (3)": form,
    "filter, tokens (4, 5)": tokens,
    "dump-teacher": teacher,
    "check streams": check,
    "dataset": walk,
}


def tiny(folder: Path) -> None:
    """A character BERT of one layer and 16 columns with random weights: a teacher that costs next to nothing."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_HANZI]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)


def run(name: str) -> None:
    """One stage in this process and this folder; leaves what it used in a file."""
    if name == "dataset":
        import espnet2.train.dataset
        import espnet2.train.preprocessor  # noqa: F401 - imports aren't the stage's
    elif name == "dump-teacher":
        import transformers  # noqa: F401
    start, used = time.perf_counter(), _processor_seconds()
    STAGES[name]()
    found = {"seconds": time.perf_counter() - start, "processor_seconds": _processor_seconds() - used}
    Path("used").write_text(json.dumps({**found, "peak_mib": _peak(), "load": os.getloadavg()[0]}))


def _processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def _peak() -> float:
    """MiB of resident memory, at most, of this process since it began (getrusage would count its parent's too)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def measure(folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Seconds and peak memory in MiB of every stage at one size; what is noted there already is kept."""
    note = folder / "load.json"
    known = json.loads(note.read_text(encoding="utf8")) if note.is_file() else {}
    if not known:
        corpus(folder, count)
        tiny(folder / "plm")
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
    for name in STAGES:
        if name in known:
            continue
        command = [sys.executable, __file__, "--stage", name]
        with (
            open(folder / "log", "ab") as log,
            subprocess.Popen(command, cwd=folder, env=env, stderr=log, stdout=log) as p,
        ):
            p.wait()
        if p.returncode:
            raise SystemExit(f"{name}: {(folder / 'log').read_text(errors='replace')[-2000:]}")
        known[name] = json.loads((folder / "used").read_text())
        print(f"{count:7d} {name:22s} {known[name]['seconds']:8.2f} s {known[name]['peak_mib']:7.0f} MiB", flush=True)
        note.write_text(json.dumps(known), encoding="utf8")
    return known


def report(found: dict[int, dict[str, dict[str, float]]]) -> str:
    """A Markdown table: processors' milliseconds an utterance, peak memory, and how it grows with each utterance."""
    sizes = sorted(found)
    rows = [["stage", *(f"{size:,}" for size in sizes), "bytes an utterance"]]
    for name in STAGES:
        times = [f"{1000 * found[size][name]['processor_seconds'] / size:.2f} ms" for size in sizes]
        times = [f"{text}, {found[size][name]['peak_mib']:.0f} MiB" for text, size in zip(times, sizes, strict=True)]
        grown = (found[sizes[-1]][name]["peak_mib"] - found[sizes[0]][name]["peak_mib"]) * 2**20
        rows.append([name, *times, f"{grown / max(1, sizes[-1] - sizes[0]):.0f}"])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="to keep, and to go on in")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        run(args.stage)
        return
    with tempfile.TemporaryDirectory() as temporary:
        found = {}
        for size in args.sizes:
            folder = (args.folder or Path(temporary)).absolute() / str(size)
            folder.mkdir(parents=True, exist_ok=True)
            found[size] = measure(folder, size)
    print(report(found))
    if args.out:
        content = {"provenance": provenance(), "stages": {str(size): found[size] for size in found}}
        args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()

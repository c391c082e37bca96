"""What teacher archives cost and lose: size and errors of 16-bit and 8-bit ones, cosines with and without whitening.

python3 benchmarks/teacher_archives.py --model e5-small-zh-char --text TEXT --work DIR [--texts 100]
"""

import argparse
import itertools
import json
from pathlib import Path

import kaldiio
import numpy as np

from espnet_gmot.kaldi.ark import PRECISIONS, write_archive
from espnet_gmot.kaldi.tables import read_transcripts
from espnet_gmot.teacher import PLMTeacher, dump
from espnet_gmot.teacher.normalise import MODES


def cosine_costs(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """1 - cos between all pairs of rows, the mean taken off first."""
    unit = (rows - mean) / np.linalg.norm(rows - mean, axis=1, keepdims=True)
    return 1 - (unit @ unit.T)[np.triu_indices(len(unit), 1)]


def describe(costs: np.ndarray, same: np.ndarray) -> str:
    """Spread of the costs, and by how many standard deviations equal tokens are closer than different ones."""
    near, far = costs[same], costs[~same]
    contrast = (far.mean() - near.mean()) / np.sqrt((near.var() + far.var()) / 2)
    return f"{costs.std():.3f} | {contrast:.2f}"


def size_of(folder: Path) -> int:
    """Bytes of a folder's arks."""
    return sum(path.stat().st_size for path in folder.glob("teacher.*.ark"))


def main() -> None:
    """Dump, compress, compare; one table of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="teacher: a folder or hub name")
    parser.add_argument("--text", required=True, type=Path, help="Kaldi text file")
    parser.add_argument("--work", required=True, type=Path, help="folder for the archives")
    parser.add_argument(
        "--texts", type=int, default=100, help="distinct transcripts to compare; all give the statistics"
    )
    parser.add_argument("--layer", type=int, default=-1, help="the teacher's layer")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    chosen = dict(itertools.islice({t: k for k, t in read_transcripts(args.text).items()}.items(), args.texts))
    text = args.work / "text"
    text.write_text("".join(f"{key} {line}\n" for line, key in chosen.items()), encoding="utf-8")
    tokens = PLMTeacher(args.model).tokens
    ids = np.concatenate([ids[tokens.prefix : len(ids) - tokens.suffix] for ids in tokens.encode(list(chosen))])
    same = (ids[:, None] == ids)[np.triu_indices(len(ids), 1)]
    print("| features | stored as | size | error of a value | of a cosine cost | spread of costs | contrast |")
    print("|---|---|---|---|---|---|---|")
    for mode in MODES:
        common = ["--model", args.model, "--layer", str(args.layer), "--normalise", mode]
        if mode != "none":
            dump.main([*common, "--text", str(args.text), "--out", str(args.work / f"{mode}_all")])
            common += ["--stats", str(args.work / f"{mode}_all")]
        dump.main([*common, "--text", str(text), "--out", str(args.work / mode)])
        compare(args.work / mode, mode, same)


def compare(folder: Path, mode: str, same: np.ndarray) -> None:
    """One line of the table for each precision; values' errors in standard deviations of their column."""
    exact = dict(kaldiio.load_scp(str(folder / "teacher.scp")).items())
    rows = np.concatenate(list(exact.values()))
    mean = np.float32(json.loads((folder / "teacher.json").read_text(encoding="utf8"))["mean"])
    means = {mode: mean} if mode != "none" else {"none": 0 * mean, "none, centred": mean}
    for name, mean in means.items():
        costs = cosine_costs(rows, mean)
        for precision in PRECISIONS:
            ark = folder / f"{precision}.ark"
            offsets = write_archive(ark, exact.items(), precision)
            stored = np.concatenate([kaldiio.load_mat(f"{ark}:{offset}") for offset in offsets])
            share = ark.stat().st_size / size_of(folder)
            ark.unlink()
            value, cost = abs(stored - rows) / rows.std(axis=0), abs(cosine_costs(stored, mean) - costs)
            print(
                f"| {name} | {precision} | {share:.3f} | {value.mean():.2g} (max {value.max():.2g}) "
                f"| {cost.mean():.2g} (max {cost.max():.2g}) | {describe(costs, same)} |"
            )


if __name__ == "__main__":
    main()

"""``recipe``: asr.sh's stages in this process."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import alone, sweep, writing
from espnet_gmot.recipe import lm, options, score
from espnet_gmot.recipe.ahead import look_ahead, require_sets
from espnet_gmot.recipe.decode import decode
from espnet_gmot.recipe.format import check_leaks, filter_set, format_set, write_lm_text
from espnet_gmot.recipe.jobs import Job as EspnetJob
from espnet_gmot.recipe.jobs import cores, run_one
from espnet_gmot.recipe.lay import lay
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.results_md import write_results
from espnet_gmot.recipe.speed import perturb_training_set
from espnet_gmot.recipe.teacher import layers_of
from espnet_gmot.recipe.token_list import make_token_list
from espnet_gmot.recipe.train import collect_stats, train


def prepare(layout: Layout) -> None:
    """Stage 1: the corpus's own local/data.sh."""
    limit = {"GMOT_MAX_BAD": str(layout.args.max_bad)} if layout.args.max_bad else {}
    run_local("local/data.sh", shlex.split(layout.args.local_data_opts), limit)


def run_local(script: str, words: list[str], more: dict[str, str] | None = None) -> None:
    """Run a script of the recipe's own.

    Args:
        script: such as local/data.sh.
        words: its arguments.
        more: what its environment has beside this process's.

    Raises:
        UserError: it can't be run, or failed.
    """
    try:
        status = subprocess.run([script, *words], check=False, env=os.environ | (more or {})).returncode
    except OSError as error:
        if os.path.isfile(script):
            fix = f"chmod +x {script}, and see that its first line names a program, as #!/usr/bin/env bash does"
        else:
            fix = "run from a recipe's folder, such as egs2/aishell_gmot/asr1"
        raise UserError(f"{script}: {error.strerror}; {fix}") from error
    if status:
        raise UserError(f"{script}: exit status {status}; the reason is above; rerun to continue")


def perturb(layout: Layout) -> None:
    """Stage 2."""
    args = layout.args
    if not args.speed_perturb_factors:
        print("no --speed_perturb_factors: nothing to do", flush=True)
        return
    if args.feats_type != "raw":
        raise UserError(
            f"--speed_perturb_factors {args.speed_perturb_factors!r}: needs --feats_type raw, or give an empty value"
        )
    perturb_training_set(args.train_set, args.speed_perturb_factors)


def format_sets(layout: Layout) -> None:
    """Stage 3."""
    train_sets = [] if layout.args.skip_train else [layout.train_set, layout.valid_set]
    if layout.args.skip_train and layout.args.eval_valid_set:
        train_sets = [layout.valid_set]
    if not layout.args.skip_train:
        check_leaks(layout)
    for name in train_sets + layout.test_sets:
        format_set(layout, name, cores())


def filter_sets(layout: Layout) -> None:
    """Stage 4."""
    for name in (layout.train_set, layout.valid_set):
        filter_set(layout, name)
    write_lm_text(layout)


def list_tokens(layout: Layout) -> None:
    """Stage 5."""
    print(f"{layout.token_list}: {make_token_list(layout)} tokens", flush=True)


def score_sets(layout: Layout) -> None:
    """Stage 13, and what the corpus's own local/score.sh adds; RESULTS.md is there whatever becomes of that."""
    sweep(layout.asr_exp)
    score.score(layout)
    try:
        if Path("local/score.sh").is_file():
            run_local("local/score.sh", [*shlex.split(layout.args.local_score_opts), str(layout.asr_exp)])
    finally:
        print(write_results(layout.asr_exp), flush=True)


def pack(layout: Layout) -> None:
    """Stage 14: config, parameters, statistics and results in one zip, of a gmot experiment as a stock model."""
    args = layout.args
    packed = layout.asr_exp / f"{layout.asr_exp.name}_{args.inference_asr_model.rsplit('.', 1)[0]}.zip"
    command = ["asr", "--asr_train_config", f"{layout.asr_exp}/config.yaml"]
    command += ["--asr_model_file", f"{layout.asr_exp}/{args.inference_asr_model}"]
    if args.use_lm:
        command += [
            "--lm_train_config",
            f"{layout.lm_exp}/config.yaml",
            "--lm_file",
            f"{layout.lm_exp}/{args.inference_lm}",
        ]
        command += ["--option", f"{layout.lm_exp}/perplexity_test/ppl", "--option", f"{layout.lm_exp}/images"]
    if args.feats_normalize == "global_mvn":
        command += ["--option", f"{layout.asr_stats}/train/feats_stats.npz"]
    if args.token_type == "bpe":
        command += ["--option", layout.bpemodel]
    if args.nlsyms_txt != "none":
        command += ["--option", args.nlsyms_txt]
    command += [
        "--option",
        f"{layout.asr_exp}/RESULTS.md",
        "--option",
        f"{layout.asr_exp}/images",
        "--outpath",
        str(packed),
    ]
    job = EspnetJob("espnet2.bin.pack", tuple(command), layout.asr_exp / "pack.log")
    ours = "espnet_gmot: "  # what became of the model; all else that is printed is ESPnet's
    run_one(job, echo=lambda line: line.removeprefix(ours) if line.startswith(ours) else None)
    print(f"packed: {packed}", flush=True)


STAGES: dict[int, tuple[str, Callable[[Layout], object], Callable[[Layout], Path | None]]] = {
    1: ("data preparation", prepare, lambda _: Path("data")),
    2: ("speed perturbation", perturb, lambda _: Path("data")),
    3: ("format audio or features", format_sets, lambda layout: layout.dump),
    4: ("drop short, long and empty utterances", filter_sets, lambda layout: layout.dump),
    5: ("token list", list_tokens, lambda layout: layout.token_list.parent),
    6: ("language model: statistics", lm.collect_stats, lambda layout: layout.lm_stats),
    7: ("language model: training", lm.train, lambda _: None),  # the training holds its folder itself
    8: ("language model: perplexity", lm.perplexity, lambda layout: layout.lm_exp / "perplexity_test"),
    10: ("statistics", collect_stats, lambda layout: layout.asr_stats),
    11: ("training", train, lambda _: None),
    12: ("decoding", decode, lambda layout: layout.asr_exp / layout.inference_tag),
    13: ("scoring", score_sets, lambda layout: layout.asr_exp / layout.inference_tag),
    14: ("packing", pack, lambda _: None),
}
"""Title and function of every stage, and the folder in which it works alone."""


def run(argv: list[str]) -> None:
    """Run the stages that the options ask for, in order.

    Args:
        argv: asr.sh's options.

    Raises:
        UserError: bad options, missing files or a failed stage.
    """
    if argv[:1] == ["--init"]:
        if len(argv) != 2:
            raise UserError("--init: give the folder to write, and nothing else")
        print(f"{argv[1]}: {', '.join(lay(Path(argv[1])))}; next: cd {shlex.quote(argv[1])} && ./run.sh --help")
        return
    if argv[:1] == ["--layers"] and len(argv) == 4:  # run.sh asks, before its first stage
        print(*layers_of(*argv[1:]))
        return
    words = shlex.join(["python3", "-m", "espnet_gmot", "recipe", *argv])
    layout = Layout(options.parse(argv), f". ./path.sh && {words}" if Path("path.sh").is_file() else words)
    look_ahead(layout)
    start = time.perf_counter()
    for number, (title, stage, folder) in STAGES.items():
        if not layout.runs(number):
            continue
        begin = time.perf_counter()
        log(f"stage {number}: {title}")
        place = folder(layout)
        with nullcontext() if place is None else alone(place):
            stage(layout)
        if number == 1:
            require_sets(layout)
        log(f"stage {number}: done in {time.perf_counter() - begin:.1f} s")
    log(f"finished in {time.perf_counter() - start:.1f} s")


def log(text: str) -> None:
    """Print a line with the time."""
    print(f"{datetime.now():%Y-%m-%dT%H:%M:%S} {text}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command; raises UserError on bad options or a failed stage. 130 or 143 if interrupted or terminated."""
    # leave by an exception, so that running forks are ended too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with writing():
            run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        log("interrupted; the same command continues")
        return 130
    return 0

"""Stages 6 to 8: statistics, training and perplexity of the language model."""

import shlex
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.tables import count_lines, read_transcripts, split_table
from espnet_gmot.recipe.jobs import Job, run_one, sensible_parts
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.train import common_options, require_same_tokens, run_stats, run_training, write_resume_script

TRAIN = "espnet2.bin.lm_train"
PERPLEXITY = "espnet2.bin.lm_calc_perplexity"


def collect_stats(layout: Layout) -> None:
    """Stage 6."""
    args, logs = layout.args, layout.lm_stats / "logdir"
    if not (layout.dump / "lm_train.txt").is_file():
        raise UserError(f"{layout.dump}/lm_train.txt: no such file; run stages 3 and 4 first")
    keys = (layout.dump / "lm_train.txt", clean_copy(layout, layout.lm_dev_text()))
    parts = min(sensible_parts(args.nj), *map(count_lines, keys))
    indices = range(1, parts + 1)
    for path, split in zip(keys, ("train", "dev"), strict=True):
        split_table(path, [logs / f"{split}.{index}.scp" for index in indices])
    write_resume_script(layout, layout.lm_stats, 6)
    shared = ["--collect_stats", "true", *common_options(layout), *_data(layout)]
    jobs = []
    for index in indices:
        own = ["--train_shape_file", f"{logs}/train.{index}.scp", "--valid_shape_file", f"{logs}/dev.{index}.scp"]
        own += ["--output_dir", f"{logs}/stats.{index}", *shlex.split(args.lm_args), "--ngpu", "0"]
        jobs.append(Job(TRAIN, (*shared, *own), logs / f"stats.{index}.log"))
    run_stats(jobs, layout.lm_stats, layout, sums=True)


def clean_copy(layout: Layout, path: Path) -> Path:
    """A text that ESPnet's programs read themselves: the user's file, or a cleaned copy in dump/ where they would
    read it otherwise than this package's reader does (byte order marks, unusual spaces).

    Raises:
        UserError: see :func:`espnet_gmot.kaldi.tables.read_transcripts`.
    """
    texts = read_transcripts(path, allow_empty=True)
    plain = "".join(f"{key} {text}".rstrip() + "\n" for key, text in texts.items())
    if path.read_text(encoding="utf-8").replace("\t", " ") == plain:
        return path
    copy = layout.dump / f"clean_{path.name}"
    write_text(copy, plain)
    return copy


def _data(layout: Layout) -> list[str]:
    if layout.args.lm_config and not Path(layout.args.lm_config).is_file():
        raise UserError(f"--lm_config {layout.args.lm_config}: no such file")
    options = ["--config", layout.args.lm_config] if layout.args.lm_config else []
    options += ["--train_data_path_and_name_and_type", f"{layout.dump / 'lm_train.txt'},text,text"]
    return [*options, "--valid_data_path_and_name_and_type", f"{clean_copy(layout, layout.lm_dev_text())},text,text"]


def train(layout: Layout) -> None:
    """Stage 7."""
    args, stats = layout.args, layout.lm_stats
    require_same_tokens(layout.lm_exp, layout.token_list)
    options = [*common_options(layout), *_data(layout), "--fold_length", str(args.lm_fold_length), "--resume", "true"]
    for split in ("train", "valid"):
        options += [f"--{split}_shape_file", f"{stats}/{split}/text_shape.{args.token_type}"]
    options += ["--output_dir", str(layout.lm_exp), *shlex.split(args.lm_args)]
    options += ["--ngpu", str(args.ngpu), "--multiprocessing_distributed", "true"]
    run_training(layout, Job(TRAIN, tuple(options), layout.lm_exp / "train.log"), layout.lm_exp, 7)


def perplexity(layout: Layout) -> float:
    """Stage 8: the perplexity of the test text, also in ``lm_exp/perplexity_test/ppl``."""
    folder = layout.lm_exp / "perplexity_test"
    options = ["--ngpu", str(min(layout.args.ngpu, 1))]
    options += ["--data_path_and_name_and_type", f"{clean_copy(layout, layout.lm_test_text())},text,text"]
    options += ["--train_config", f"{layout.lm_exp}/config.yaml", "--output_dir", str(folder)]
    options += ["--model_file", f"{layout.lm_exp}/{layout.args.inference_lm}"]
    run_one(Job(PERPLEXITY, tuple(options), folder / "lm_calc_perplexity.log"), echo=lambda line: None)
    value = float((folder / "ppl").read_text().split()[0])
    print(f"perplexity of {layout.lm_test_text()}: {value:.2f}", flush=True)
    return value

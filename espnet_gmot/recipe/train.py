"""Stages 10 and 11: statistics of the training data, then training."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import install, read_mapping, write_text
from espnet_gmot.hosts.guard import before
from espnet_gmot.kaldi.tables import count_lines, split_table
from espnet_gmot.kaldi.wav import sampling_rate
from espnet_gmot.marks import digest_of, is_complete, made_by, of_other_features, renew, set_complete
from espnet_gmot.recipe.jobs import Job, TrainingEcho, cores, run_one, run_parts, sensible_parts, versions
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.streams import check_streams, list_unalignable

TRAIN = "espnet2.bin.asr_train"


def common_options(layout: Layout) -> list[str]:
    """Options that stages 10 and 11 share."""
    args = layout.args
    if not layout.token_list.is_file():
        raise UserError(f"{layout.token_list}: no such file; run stage 5 first")
    options = ["--use_preprocessor", "true", "--bpemodel", layout.bpemodel, "--token_type", args.token_type]
    options += ["--token_list", str(layout.token_list), "--non_linguistic_symbols", args.nlsyms_txt]
    return options + ["--cleaner", args.cleaner, "--g2p", args.g2p]


def input_options(layout: Layout) -> list[str]:
    """The configuration, and what it must know about the input."""
    args, directory = layout.args, layout.dump / layout.train_set
    if args.asr_config and not Path(args.asr_config).is_file():
        raise UserError(f"--asr_config {args.asr_config}: no such file")
    options = ["--config", args.asr_config] if args.asr_config else []
    if layout.speech(directory)[0] == "wav.scp":
        sampling_rate(args.fs, "--fs")
        return [*options, "--frontend_conf", f"fs={args.fs}"]
    return [*options, f"--input_size={(directory / 'feats_dim').read_text().strip()}"]


def data_options(layout: Layout, split: str, name: str) -> list[str]:
    """ESPnet's data streams ``speech`` and ``text`` of a set, as ``train`` or ``valid`` data."""
    directory = layout.dump / name
    scp, kind = layout.speech(directory)
    option = f"--{split}_data_path_and_name_and_type"
    return [option, f"{directory / scp},speech,{kind}", option, f"{directory / 'text'},text,text"]


def write_resume_script(layout: Layout, directory: Path, stage: int) -> None:
    """Leave ``run.sh`` in an experiment's folder: the same command, from this stage on."""
    path = directory / "run.sh"
    write_text(path, f'{layout.run_args} --stage {stage} "$@"; exit $?\n')
    path.chmod(0o755)


def collect_stats(layout: Layout) -> None:
    """Stage 10: shapes of all training and validation data, and the features' mean and variance."""
    check_streams(layout, audio=True)
    args, logs = layout.args, layout.asr_stats / "logdir"
    keys = [layout.dump / name / layout.speech(layout.dump / name)[0] for name in (layout.train_set, layout.valid_set)]
    parts = min(sensible_parts(args.nj), *map(count_lines, keys))
    for path, split in zip(keys, ("train", "valid"), strict=True):
        split_table(path, [logs / f"{split}.{index}.scp" for index in range(1, parts + 1)])
    write_resume_script(layout, layout.asr_stats, 10)
    shared = ["--collect_stats", "true", *common_options(layout), *input_options(layout)]
    shared += data_options(layout, "train", layout.train_set) + data_options(layout, "valid", layout.valid_set)
    jobs = []
    for index in range(1, parts + 1):
        own = ["--train_shape_file", f"{logs}/train.{index}.scp", "--valid_shape_file", f"{logs}/valid.{index}.scp"]
        own += ["--output_dir", f"{logs}/stats.{index}", *shlex.split(args.asr_args), "--ngpu", "0"]
        jobs.append(Job(TRAIN, (*shared, *own), logs / f"stats.{index}.log"))
    run_stats(jobs, layout.asr_stats, layout, sums=args.feats_normalize == "global_mvn")
    list_unalignable(layout)


def run_stats(jobs: Sequence[Job], stats: Path, layout: Layout, *, sums: bool) -> None:
    """Run what is left of the jobs, whose folders are ``stats/logdir/stats.N``, and :func:`aggregate` them."""
    folders = [stats / "logdir" / f"stats.{index}" for index in range(1, len(jobs) + 1)]
    mark = digest_of(job.fingerprint() for job in jobs)
    if run_parts(jobs, folders, processes=cores(), unit="part") or not is_complete(stats, mark):
        aggregate(folders, stats, layout, sums=sums)
        set_complete(stats, mark)


def aggregate(parts: Sequence[Path], stats: Path, layout: Layout, *, sums: bool) -> None:
    """Merge the parts' shapes and sums, and write text_shape.TYPE: text_shape with the vocabulary's size behind.

    Args:
        parts: folders of the collect-stats jobs.
        stats: folder that receives ``train`` and ``valid``.
        layout: for the token list.
        sums: add up the features' sums too (for global_mvn).
    """
    from espnet2.bin.aggregate_stats_dirs import aggregate_stats_dirs

    new = stats / ".new"
    aggregate_stats_dirs(parts, new, "WARNING", not sums)
    size = count_lines(layout.token_list)
    for split in ("train", "valid"):
        lines = (new / split / "text_shape").read_text(encoding="utf-8").splitlines()
        write_text(new / split / f"text_shape.{layout.args.token_type}", "".join(f"{line},{size}\n" for line in lines))
    # statistics that come out the same leave the experiments that were trained on them as they are
    install(new, stats)


def training_options(layout: Layout) -> list[str]:
    """The command line of stage 11."""
    args, stats = layout.args, layout.asr_stats
    if not (stats / "train" / "speech_shape").is_file():
        raise UserError(f"{stats}/train/speech_shape: no such file; run stage 10 first")
    raw = layout.speech(layout.dump / layout.train_set)[0] == "wav.scp"
    fold = args.asr_speech_fold_length * 100 if raw else args.asr_speech_fold_length
    options = [
        *common_options(layout),
        "--resume",
        "true",
        "--ignore_init_mismatch",
        str(args.ignore_init_mismatch).lower(),
    ]
    if args.pretrained_model:
        options += ["--init_param", args.pretrained_model]
    options += ["--output_dir", str(layout.asr_exp), *input_options(layout)]
    if args.feats_normalize == "global_mvn":
        options += ["--normalize=global_mvn", "--normalize_conf", f"stats_file={stats}/train/feats_stats.npz"]
    options += ["--fold_length", str(fold), "--fold_length", str(args.asr_text_fold_length)]
    for split, name in (("train", layout.train_set), ("valid", layout.valid_set)):
        options += data_options(layout, split, name)
        for shape in ("speech_shape", f"text_shape.{args.token_type}"):
            options += [f"--{split}_shape_file", f"{stats}/{split}/{shape}"]
    options += shlex.split(args.asr_args)
    return [*options, "--ngpu", str(args.ngpu), "--multiprocessing_distributed", "true"]


def require_same_tokens(directory: Path, token_list: Path) -> None:
    """Check that an experiment to be continued was begun with this token list.

    Raises:
        UserError: it was not; ESPnet itself would fail with a mismatch of shapes.
    """
    config = directory / "config.yaml"
    if not (config.is_file() and (directory / "checkpoint.pth").is_file()):
        return
    try:
        begun = read_mapping(config)
    except UserError:
        return  # cut short by a kill: ESPnet writes it anew at every start
    old, new = begun.get("token_list"), token_list.read_text(encoding="utf-8").splitlines()
    if isinstance(old, list) and old != new:
        raise UserError(
            f"{directory}: was begun with {len(old)} tokens that are not the {len(new)} of {token_list}; "
            "give another --asr_tag (or --lm_tag), or delete it"
        )


def train(layout: Layout) -> None:
    """Stage 11: train, or continue an interrupted training; a finished one is left alone."""
    require_same_tokens(layout.asr_exp, layout.token_list)
    check_streams(layout)
    options = tuple(training_options(layout))
    run_training(layout, Job(TRAIN, options, layout.asr_exp / "train.log"), layout.asr_exp, 11)


def run_training(layout: Layout, job: Job, directory: Path, stage: int) -> None:
    """Run a training program that resumes by itself, unless ``directory`` is marked as finished by the same command.

    Args:
        layout: the recipe.
        job: the training.
        directory: its folder, which is left as it is where the training is refused.
        stage: its number, for the script that continues it.

    Raises:
        UserError: another run trains there, what is there is a model of another kind, or the training failed.
    """
    mark = job.fingerprint()
    if is_complete(directory, mark):
        old, now = made_by(directory), versions()
        by = "" if old == now else f" by {old}, and kept although {now} is installed: delete the folder to train anew"
        print(f"{directory}: trained already{by or f' (delete {directory}/.complete to train on)'}", flush=True)
        renew(directory, mark)
        return
    if of_other_features(directory, mark):  # ESPnet would find the training finished, and it would count as theirs
        raise UserError(
            f"{directory}: was trained on features that were replaced since (--overwrite); give another --asr_tag, or "
            "delete it"
        )
    before(job.module, list(job.argv))
    write_resume_script(layout, directory, stage)
    print(f"log: {job.log}", flush=True)
    config = directory / "config.yaml"
    begun = config.read_text(encoding="utf-8") if config.is_file() else None
    try:
        run_one(job, echo=TrainingEcho())
    except UserError as error:
        if (directory / "checkpoint.pth").is_file() and re.search(
            r"size mismatch for|key\(s\) in state_dict", str(error)
        ):
            if begun is not None:  # ESPnet writes the new configuration before it tries the old checkpoint
                write_text(config, begun)
            raise UserError(
                f"{directory}: its checkpoint doesn't fit the configuration given now, it was begun with another; "
                f"give another --asr_tag (or --lm_tag), or delete it (ESPnet's own words: {job.log})"
            ) from error
        raise
    set_complete(directory, mark, versions())

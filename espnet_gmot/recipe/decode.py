"""Stage 12: decoding, one process for each core or GPU."""

import argparse
import shlex
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.tables import count_lines, read_lines, split_table
from espnet_gmot.recipe.jobs import Job, asked_gpus, cores, run_parts, sensible_parts
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.train import write_resume_script

INFER = "espnet2.bin.asr_inference"
_OUTPUTS = ("token", "token_int", "score", "text")


def decode(layout: Layout) -> None:
    """Decode every test set (and the validation set if asked); parts that are finished are kept."""
    model, config = layout.asr_exp / layout.args.inference_asr_model, layout.asr_exp / "config.yaml"
    for path in (model, config):
        if not path.is_file():
            found = ", ".join(sorted(other.name for other in layout.asr_exp.glob("*.pth"))) or "none"
            raise UserError(f"{path}: no such file (models there: {found}); run stage 11, or set --inference_asr_model")
    write_resume_script(layout, layout.asr_exp / layout.inference_tag, 12)
    for name in layout.decoded_sets():
        _decode_set(layout, name)


def _decode_set(layout: Layout, name: str) -> None:
    data, out = layout.dump / name, layout.asr_exp / layout.inference_tag / name
    logs = out / "logdir"
    scp, kind = layout.speech(data)
    processes = decoding_processes(layout.args)
    parts = min(sensible_parts(layout.args.inference_nj, processes), count_lines(data / scp))
    keys = [logs / f"keys.{index}.scp" for index in range(1, parts + 1)]
    split_table(data / scp, keys)
    speech = f"{data / scp},speech,{kind}"
    jobs = [_job(layout, speech, logs, index) for index in range(1, parts + 1)]
    outputs = [logs / f"output.{index}" for index in range(1, parts + 1)]
    print(f"{out}: log: {logs}/asr_inference.*.log", flush=True)
    sizes = [count_lines(path) for path in keys]
    run_parts(jobs, outputs, processes=processes, unit="utt", marker="best hypo", sizes=sizes)
    for file in _OUTPUTS:
        found = [output / "1best_recog" / file for output in outputs if (output / "1best_recog" / file).is_file()]
        lines = [line for path in found for _, line in read_lines(path)]
        if found:
            write_text(out / file, "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.split()[0])))


def _job(layout: Layout, speech: str, logs: Path, index: int) -> Job:
    args = layout.args
    options = ["--batch_size", str(args.batch_size), "--ngpu", "1" if args.gpu_inference else "0"]
    options += ["--data_path_and_name_and_type", speech, "--key_file", f"{logs}/keys.{index}.scp"]
    options += ["--asr_train_config", f"{layout.asr_exp}/config.yaml"]
    options += ["--asr_model_file", f"{layout.asr_exp}/{args.inference_asr_model}"]
    options += ["--output_dir", f"{logs}/output.{index}"]
    if args.inference_config:
        options += ["--config", args.inference_config]
    if args.use_lm:
        options += [
            "--lm_train_config",
            f"{layout.lm_exp}/config.yaml",
            "--lm_file",
            f"{layout.lm_exp}/{args.inference_lm}",
        ]
    return Job(INFER, (*options, *shlex.split(args.inference_args)), logs / f"asr_inference.{index}.log")


def decoding_processes(args: argparse.Namespace) -> int:
    """How many parts are decoded at a time: one for each core or, on GPUs, for each of these.

    Args:
        args: the recipe's options.

    Raises:
        UserError: decoding wants GPUs, and torch sees none.
    """
    if not (args.gpu_inference or asked_gpus(shlex.split(args.inference_args))):
        return cores()
    import torch

    if not (found := torch.cuda.device_count()):
        raise UserError("decoding is to run on GPUs, but torch sees none: give --gpu_inference false")
    return found

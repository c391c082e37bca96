"""What can be known before the first stage: whatever a later one would end with, hours from now."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import read_mapping
from espnet_gmot.marks import MARK
from espnet_gmot.recipe.decode import INFER, decoding_processes
from espnet_gmot.recipe.jobs import check_gpus, preload, refused_words
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.lm import TRAIN as TRAIN_LM
from espnet_gmot.recipe.teacher import transfer_of
from espnet_gmot.recipe.train import TRAIN

_NEEDS = "--output_dir x --data_path_and_name_and_type x,x,x"  # what asr_inference wants beside the user's options


def look_ahead(layout: Layout) -> None:
    """Look at what all stages need that are to run now or, by ``--look_to``, later.

    Raises:
        UserError: a GPU, a configuration, a data set or another file is missing, or ESPnet knows no such option.
    """
    require_gpus(layout)
    require_files(layout)
    if not layout.runs(1):
        require_sets(layout)
    require_options(layout)


def require_gpus(layout: Layout) -> None:
    """Look for the GPUs before hours of other stages, not after.

    Raises:
        UserError: a training that isn't finished, or decoding, wants more than there are.
    """
    trainings = [folder for stage, folder in ((7, layout.lm_exp), (11, layout.asr_exp)) if layout.wants(stage)]
    unfinished = any(not (folder / MARK).is_file() for folder in trainings)
    if unfinished and layout.args.ngpu:
        check_gpus(layout.args.ngpu)
    if layout.wants(12):
        decoding_processes(layout.args)


def require_files(layout: Layout) -> None:
    """Look for the configurations and the other files that are the user's own.

    Raises:
        UserError: one is missing, or a configuration is none.
    """
    args = layout.args
    for name, stages in (("lm_config", (6, 7)), ("asr_config", (10, 11)), ("inference_config", (12,))):
        if (value := getattr(args, name)) and any(map(layout.wants, stages)):
            _require_file(name, value, value)
            read_mapping(Path(value))
    if layout.wants(11) and args.pretrained_model:
        _require_file("pretrained_model", args.pretrained_model, args.pretrained_model.split(":")[0])
    if args.nlsyms_txt != "none" and any(map(layout.wants, (5, 10, 11))):
        _require_file("nlsyms_txt", args.nlsyms_txt, args.nlsyms_txt)
    if any(map(layout.wants, (10, 11))):
        transfer_of(args.asr_config, args.asr_args)  # names an option of gmot_conf that is none


def _require_file(name: str, value: str, path: str) -> None:
    if not Path(path).is_file():
        raise UserError(f"--{name} {value}: no such file; give the path of one, seen from {Path.cwd()}")


def require_sets(layout: Layout) -> None:
    """Look for the folders of data/ and dump/ that the stages read and that none of them makes before.

    Raises:
        UserError: one is missing; names the sets that are there.
    """
    for option, folder, maker in _sets(layout):
        if not folder.is_dir():
            there = sorted(path.parent.name for path in folder.parent.glob("*/text"))
            raise UserError(
                f"--{option} {getattr(layout.args, option)!r}: {folder}: no such folder (there: "
                f"{', '.join(there) or 'none'}); give one that is there, or run stage {maker} first"
            )


def _sets(layout: Layout) -> Iterator[tuple[str, Path, int]]:
    """Option, folder, and the stage that makes it."""
    args, wants, data, org = layout.args, layout.wants, Path("data"), layout.dump / "org"
    if wants(2) and args.speed_perturb_factors:
        yield "train_set", data / args.train_set, 1
    if wants(3):
        if not args.skip_train and not wants(2):
            yield "train_set", data / layout.train_set, 2 if args.speed_perturb_factors else 1
        if not args.skip_train or args.eval_valid_set:
            yield "valid_set", data / layout.valid_set, 1
        yield from (("test_sets", data / name, 1) for name in layout.test_sets)
        return
    for name, set_name in (("train_set", layout.train_set), ("valid_set", layout.valid_set)):
        if wants(4):
            yield name, org / set_name, 3
        elif wants(10) or wants(11):
            yield name, layout.dump / set_name, 4
    if wants(12) or wants(13):
        if args.eval_valid_set:
            yield "valid_set", org / layout.valid_set, 3
        yield from (("test_sets", layout.dump / name, 3) for name in layout.test_sets)


def require_options(layout: Layout) -> None:
    """Have ESPnet's own programs read their configurations and options, where stages run before they would.

    That costs ESPnet's import, so it isn't done for what begins with them or is trained already.

    Raises:
        UserError: naming the options and what ESPnet says of them.
    """
    args, asked = layout.args, []
    for name, module, first, last, exp, needs in (
        ("lm", TRAIN_LM, 6, 7, layout.lm_exp, ""),
        ("asr", TRAIN, 10, 11, layout.asr_exp, ""),
        ("inference", INFER, 12, 12, layout.asr_exp, _NEEDS),
    ):
        config, more = getattr(args, f"{name}_config"), getattr(args, f"{name}_args")
        if more and layout.wants(last) and args.stage < first and not (exp / MARK).is_file():
            words = [*(["--config", config] if config else []), *needs.split(), *shlex.split(more)]
            asked.append((f"--{name}_args {more!r}", module, words))
    preload(*(module for _, module, _ in asked))
    for option, module, words in asked:
        if (reason := refused_words(module, words)) is not None:
            raise UserError(f"{option}: {reason}")

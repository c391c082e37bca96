"""``adopt``: GM-OT in a recipe folder that somebody has already, by one command and one changed line.

It looks at what asr.sh has left there, computes the teacher's features of the dumped transcripts, writes a copy of the
training configuration with the plugin in it, and says how to go on and how to go back. Files of the user's own stay
as they are.
"""

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

from espnet_gmot import doctor
from espnet_gmot.adopt import configuration, transcripts
from espnet_gmot.adopt.installation import findings
from espnet_gmot.adopt.recipe import MORE, Recipe, look
from espnet_gmot.config import PRESETS, GMOTConfig
from espnet_gmot.doctor.finding import REQUIRED
from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.check_data import misread
from espnet_gmot.kaldi.tables import count_lines, read_transcripts
from espnet_gmot.words import parse_words, split_words

LAUNCHER = "python3 -m espnet_gmot"
STREAM = "teacher"


def parser() -> argparse.ArgumentParser:
    """The options of ``adopt``."""
    result = argparse.ArgumentParser(
        prog=f"{LAUNCHER} adopt",
        description="Prepare GM-OT in an ESPnet recipe of your own, after its stage 5 or later: run this in the folder "
        "that holds run.sh, conf/ and dump/. Nothing of yours is changed.",
    )
    add = result.add_argument
    add("config", type=Path, metavar="CONFIG", help="the training configuration, such as conf/train_asr.yaml")
    add("--teacher", required=True, metavar="MODEL", help="language model: a folder or a Hugging Face name")
    add("--preset", default="gmot", choices=[name for name in PRESETS if name != "ctc"], help="(default: gmot)")
    add("--init", type=Path, metavar="FILE", help="start from a trained stock model: exp/asr_TAG/valid.acc.ave.pth")
    add("--teacher_layer", type=int, nargs="+", metavar="N", help="layer or layers (default: what the preset says); "
        "several are mixed by weights that are learned, but hcsa has one for each of its three taps")  # fmt: skip
    add("--teacher_mode", default="archive", choices=("archive", "online"), help="compute the teacher's features now "
        "(archive, the default), or in every training step")  # fmt: skip
    add("--teacher_opts", default="", metavar="OPTS", help='more for dump-teacher: "--device cuda --precision int8"')
    add("--teacher_name", metavar="NAME", help="folder of the features beside each set's text")
    add("--out", type=Path, metavar="FILE", help="configuration to write (default: CONFIG with _gmot in its name)")
    add("--asr_tag", metavar="NAME", help="name of the experiment (default: as asr.sh would name it)")
    add(
        "--run",
        default="./run.sh",
        metavar="SCRIPT",
        help="your script, for the line that goes on (default: %(default)s)",
    )
    add("--train_set", default="", metavar="NAME", help="(default: what asr.sh was told, or what dump/ shows)")
    add("--valid_set", default="", metavar="NAME", help="likewise")
    add("--feats_type", default="", metavar="NAME", help="likewise")
    add("--dumpdir", default="dump", metavar="DIR", help="asr.sh's (default: %(default)s)")
    add("--expdir", default="exp", metavar="DIR", help="asr.sh's (default: %(default)s)")
    return result


def main(argv: list[str] | None = None) -> int:
    """Look, check, compute, write and tell.

    Args:
        argv: the words after ``adopt``.

    Returns:
        1 if something needed isn't installed, else 0.

    Raises:
        UserError: the recipe, the configuration or the teacher isn't fit; the message says what to do.
    """
    args = parser().parse_args(argv)
    configuration.read(args.config)
    recipe = look(args.train_set, args.valid_set, args.dumpdir, args.expdir, args.feats_type)
    missing = [finding for finding in findings(args.teacher) if finding.status == REQUIRED]
    if missing:
        return doctor.report(missing)
    _say("installed", "all that is needed is here")
    options = _options(args, recipe)
    config = GMOTConfig.from_dict(options)
    texts = [read_transcripts(folder / "text") for folder in (recipe.train, recipe.valid)]
    for name, folder, table in zip(("train", "valid"), (recipe.train, recipe.valid), texts, strict=True):
        _say(name, f"{folder}: {count_lines(folder / 'text')} utterances")
        if odd := misread(folder / "text", table):
            _say(
                "note",
                f"{folder}/text: {len(odd)} transcripts hold invisible characters or unusual spaces, the first is "
                f"{odd[0]}: the teacher reads them cleaned, ESPnet as they are; `python3 -m espnet_gmot check-data "
                f"--tidy data/…`, then stages 2 to 5, make them alike",
            )
    for name, line in transcripts.check(
        args, recipe, config, list(dict.fromkeys(t for x in texts for t in x.values()))
    ):
        _say(name, line)
    more: dict[str, Any] = {}
    if args.init:
        more["init_param"] = [_initial(args.init, args.config)]
    configuration.adopted(args.config, options, more)  # whatever stands in the way of that, before hours of work
    if args.teacher_mode == "archive":
        options["teacher_width"], streams = _features(args, recipe, config)
        more |= {"allow_variable_data_keys": True, **streams}
    target = args.out or args.config.with_name(f"{args.config.stem}_gmot.yaml")
    _write(target, configuration.adopted(args.config, options, more))
    _go_on(args, recipe, target)
    return 0


def _say(name: str, line: str) -> None:
    print(f"{name:10} {line}", flush=True)


def _options(args: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """``gmot_conf``, but for the teacher's width."""
    options: dict[str, Any] = {"preset": args.preset}
    if args.teacher_layer:
        options["teacher_layer"] = args.teacher_layer if len(args.teacher_layer) > 1 else args.teacher_layer[0]
        if len(args.teacher_layer) > 1 and not isinstance(PRESETS[args.preset].get("tap"), list):
            options["teacher_mix"] = True  # one tap can't be paired with several layers
            layers = ", ".join(map(str, args.teacher_layer))
            _say("layers", f"{layers}: mixed by weights that are learned (teacher_mix: true)")
    if args.teacher_mode == "online":
        if args.teacher_opts:
            raise UserError(f"--teacher_opts '{args.teacher_opts}': for archives; an online teacher's are in gmot_conf")
        return options | {"teacher": args.teacher}
    if int(recipe.told.get("num_splits_asr", "1")) > 1:
        raise UserError(
            f"--num_splits_asr {recipe.told['num_splits_asr']}: ESPnet splits its own data streams only: "
            "give --teacher_mode online"
        )
    if _normalised(args):
        options["centre"] = False  # a running mean would take the exactness away
    return options


def _normalised(args: argparse.Namespace) -> bool:
    """Whether --teacher_opts asks dump-teacher for normalised features, as dump-teacher itself understands them.

    Raises:
        UserError: dump-teacher has no such option or value, or adopt has an option of its own for it.
    """
    from espnet_gmot.teacher import dump

    parser = dump.get_parser()
    parser.set_defaults(layer=None)
    asked = parse_words(parser, "--teacher_opts", args.teacher_opts, ["--model=", "--text=", "--out="])
    for name, unset, instead in (
        ("model", "", "--teacher"),
        ("layer", None, "--teacher_layer"),
        ("text", Path(), "--train_set and --valid_set"),
        ("out", Path(), "--teacher_name"),
    ):
        if getattr(asked, name) != unset:
            raise UserError(f"--teacher_opts '{args.teacher_opts}': give {instead} to adopt in place of --{name}")
    dump.options_of(asked).check()
    return asked.normalise != "none"


def _initial(path: Path, config: Path) -> str:
    """The parameters to start from, if they fit the configuration as far as their experiment tells.

    Raises:
        UserError: the file is absent, or its experiment has another encoder, decoder, or the like.
    """
    if not path.is_file():
        found = ", ".join(sorted(f.name for f in path.parent.glob("*.pth"))) or "no *.pth"
        raise UserError(f"--init {path}: no such file; {path.parent} has {found}")
    beside = path.parent / "config.yaml"
    if beside.is_file():
        wanted, trained = configuration.read(config)[1], configuration.read(beside)[1]
        for key in transcripts.ARCHITECTURE:
            for option, value in _leaves(wanted.get(key), key):
                there = trained.get(key) if option == key else (trained.get(key) or {}).get(option.partition(": ")[2])
                if value != there:
                    raise UserError(
                        f"--init {path}: trained with {option}: {there}, but {config} says {value}: make them agree"
                    )
    return str(path)


def _leaves(value: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"{key}: {name}", item) for name, item in value.items()]
    return [] if value is None else [(key, value)]


def _features(args: argparse.Namespace, recipe: Recipe, config: GMOTConfig) -> tuple[int, dict[str, Any]]:
    """Compute the teacher's features of both sets; their width, and the data streams."""
    import json

    from espnet_gmot.teacher import dump

    layers = "" if config.layers == [-1] else "_" + "_".join(map(str, config.layers))
    name = args.teacher_name or f"{STREAM}_{Path(args.teacher).name}{layers}"
    words = [
        "--model",
        args.teacher,
        "--layer",
        *map(str, config.layers),
        *split_words("--teacher_opts", args.teacher_opts),
    ]
    streams: dict[str, Any] = {}
    for part, folder in (("train", recipe.train), ("valid", recipe.valid)):
        out = folder / name
        borrowed = ["--stats", str(recipe.train / name)] if part == "valid" and not config.centre else []
        try:
            dump.main([*words, "--text", str(folder / "text"), "--out", str(out), *borrowed])
        except UserError as error:
            if not (out / "teacher.json").is_file():
                raise
            raise UserError(f"dump-teacher {error}; to keep both, give adopt another --teacher_name") from error
        for file in MORE:
            if (folder / file).exists() and not (out / file).exists():
                os.symlink(f"../{file}", out / file)
        streams[f"{part}_data_path_and_name_and_type"] = [[str(out / "teacher.scp"), STREAM, "kaldi_ark"]]
    width = int(json.loads((out / "teacher.json").read_text(encoding="utf8"))["width"])
    size = sum(f.stat().st_size for folder in (recipe.train, recipe.valid) for f in (folder / name).glob("*.ark"))
    _say("features", f"{recipe.train / name} and {recipe.valid / name}: {width} wide, {size / 1e6:.1f} MB")
    return width, streams


def _write(path: Path, text: str) -> None:
    """Write the configuration, unless a file of another content is there.

    Raises:
        UserError: such a file is there.
    """
    if path.exists() and path.read_bytes() != text.encode("utf8"):
        raise UserError(f"{path}: is there already, and says something else: remove it or give --out")
    write_text(path, text)
    _say("written", str(path))


def _go_on(args: argparse.Namespace, recipe: Recipe, target: Path) -> None:
    """Print the commands that follow."""
    tag = args.asr_tag or recipe.tag(target.stem)
    stage = 11 if recipe.stats else 10
    exp = Path(args.expdir, f"asr_{tag}")
    first = f"{args.run} --stage {stage}"
    own = shlex.join(["--asr_config", str(target), "--asr_tag", tag])
    if recipe.lacks_language_model(Path(args.run)):
        why = f"asr.sh decodes with one unless told otherwise, and {args.expdir}/ has none"
        _say("language model", f"{why}: run stages 6 to 8 before stage 12, or add --use_lm false")
    print(
        f"\nGo on, with the launcher in this and every later call (training, decoding and packing need it), and what\n"
        f"else you give {args.run} (--ngpu, --nj):\n"
        f'  {first} --python "{LAUNCHER}" {own}\n'
        f"Afterwards, a stock experiment out of it, which needs neither launcher nor plugin:\n"
        f"  {LAUNCHER} export {shlex.quote(str(exp))} --out {shlex.quote(f'{exp}_stock')}\n"
        f"Back to stock (nothing of yours was changed):\n"
        f"  {first} --asr_config {shlex.quote(str(args.config))}"
    )

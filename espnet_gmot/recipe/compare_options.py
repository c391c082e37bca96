"""The options of ``compare``: its own, and run.sh's, which it hands on."""

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.recipe import options
from espnet_gmot.recipe.jobs import cores

_FLAGS = ("final", "after_final")
# run.sh's options that the comparison gives itself
_OURS: tuple[str, ...] = (
    "asr_config",
    "asr_tag",
    "asr_exp",
    "asr_stats_dir",
    "expdir",
    "stop_stage",
    "look_to",
    "skip_train",
    "skip_eval",
    "inference_tag",
)
_OURS += ("teacher", "teacher_name", "teacher_layer", "eval_valid_set", "use_lm")
_EPILOG = """systems: NAME[=CONFIG][@TEACHER][:OPTION=VALUE,…], separated by spaces
  ctc                              PREFIXctc.yaml
  gmot-t@e5                        PREFIXgmot-t.yaml with the teacher e5 of --teachers
  w10=gmot-t@e5:w_ot=10,w_align=10 the same with options of gmot_conf overruled, called w10
  deep=conf/ctc.yaml:encoder_conf.num_blocks=6
Every other option is run.sh's (--data, --frontend_model, --frontend_opts, --teacher_opts, --inference_config …).

Data, features and teachers are made once; a cell is one system with one seed, in exp/asr_SYSTEM_seedN. Call again to
continue: finished cells are kept, an interrupted one goes on after its last epoch. Only the validation set is scored
until --final, which scores the test sets of cells that are all finished, once; afterwards the folder trains nothing
more. results.csv holds every number of every cell that was finished in the folder, comparison.txt the table."""


def get_parser() -> argparse.ArgumentParser:
    """The command's own options."""
    parser = argparse.ArgumentParser(
        prog="run_comparison.sh",
        description="Train and score systems × seeds on one corpus.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", default="comparison", help="where data/, dump/, exp/ and the results go [comparison]")
    add("--systems", default="ctc gmot", help='what to compare, see below ["ctc gmot"]')
    add(
        "--teachers",
        default="",
        help='folders or hub names by name, e.g. "e5=DIR adapted=DIR"; one alone needs no name',
    )
    add("--seeds", default="0", help='e.g. "0 1 2" [0]')
    add("--config_prefix", default="conf/mini_", help="of the configurations [conf/mini_]")
    add("--epochs", type=int, help="overrules max_epoch of all configurations alike")
    add("--jobs", type=int, default=1, help="cells at a time, which share the cores (and GPUs) evenly [1]")
    add("--cores", type=int, default=cores(), help="cores to use in all [all]")
    add("--ngpu", type=int, default=0, help="GPUs for each cell [0]")
    add("--stage", type=int, default=1, help="first of run.sh's stages 1-10 that make the shared data [1]")
    add("--valid_set", default="dev", help="set that systems are tuned on [dev]")
    add("--test_sets", default="test", help="sets that --final scores [test]")
    add("--asr_args", default="", help="more options of asr_train, for all systems alike")
    add("--other_budget", default="", help="names of systems that may train longer or otherwise than the rest")
    add("--final", action="store_true", help="score the test sets of these systems, whose cells are all finished")
    add(
        "--after_final",
        action="store_true",
        help="train or score more although the test set is known; marked in the CSV",
    )
    add(
        "--recipe",
        type=Path,
        default=Path(__file__).resolve().parents[2] / "egs2/aishell_gmot/asr1",
        help=argparse.SUPPRESS,
    )
    parser.error = _fail  # type: ignore[assignment, method-assign]  # errors of one line
    return parser


def _fail(message: str) -> None:
    raise UserError(message.removeprefix("argument "))


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, and run.sh's as words.

    Raises:
        UserError: an unknown option, a missing value, or an option that the comparison sets itself.
    """
    parser = get_parser()
    if "-h" in argv or "--help" in argv:
        parser.print_help()
        raise SystemExit(0)
    ours = {action.dest for action in parser._actions}
    known = sorted(ours | options.names())
    own, others, words = [], [], iter(argv)
    for word in words:
        if not word.startswith("--"):
            raise UserError(f"{word!r}: every argument is an option, as in --seeds 0; see --help")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name in _FLAGS and not equals:
            own.append(f"--{name}")
            continue
        given = value if equals else next(words, None)
        if name in _OURS:
            raise UserError(f"--{name}: the comparison sets it itself; see --systems and --teachers")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UserError(f"--{name}: no such option" + (f"; did you mean --{near[0]}?" if near else "; see --help"))
        if given is None:
            raise UserError(f"--{name}: give a value")
        if name in ours:
            own.append(f"--{name}={given}")
        else:
            others += [f"--{name}", given]
    return parser.parse_args(own), others

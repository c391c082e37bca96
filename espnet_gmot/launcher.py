"""What ``python3 -m espnet_gmot`` does: the project's commands, and the launcher that hands ESPnet the plugin.

``python3 -m espnet_gmot COMMAND …`` runs a command; ``python3 -m espnet_gmot -m MODULE …`` and
``python3 -m espnet_gmot SCRIPT.py …`` run a module or a script as plain Python would, with `gmot` registered in ESPnet.
"""

import importlib
import io
import os
import runpy
import sys
from pathlib import Path

from espnet_gmot import versions
from espnet_gmot.errors import UserError
from espnet_gmot.fields import closest
from espnet_gmot.files import disk_full
from espnet_gmot.hosts.register import register
from espnet_gmot.orphan import end_with
from espnet_gmot.words import refuse_dashes

# At import, not in main(): the workers that ESPnet spawns import this module and call nothing of it (see __main__.py)
register()

_SCRIPT = "GMOT_LAUNCHED_SCRIPT"  # tells spawned workers, which get no say in sys.argv[0], what their parent runs

#: name -> (module with a `main(argv)`, what it does)
COMMANDS = {
    "adopt": ("espnet_gmot.adopt", "GM-OT in an ESPnet recipe that you have already"),
    "recipe": ("espnet_gmot.recipe.cli", "run the stages of an ESPnet recipe in one process, without a checkout"),
    "prepare-data": ("espnet_gmot.corpora.aishell", "AISHELL-1 (tree, tgz or download) into Kaldi data directories"),
    "check-data": ("espnet_gmot.kaldi.check_data", "whether data directories are fit for an asr.sh, and mend them"),
    "demo-corpus": ("espnet_gmot.corpora.demo_corpus", "synthesise a small Mandarin corpus in AISHELL-1's own form"),
    "pretrain-plm": ("espnet_gmot.teacher.pretrain", "pretrain a small character BERT, or adapt a given model"),
    "dump-teacher": ("espnet_gmot.teacher.dump", "write a teacher's features of transcripts into Kaldi archives"),
    "dump-frontend": ("espnet_gmot.speech.dump", "write a speech encoder's features into Kaldi archives"),
    "compare": ("espnet_gmot.recipe.compare", "train and score systems × seeds on one corpus (run_comparison.sh)"),
    "export": ("espnet_gmot.hosts.export", "a stock ESPnet experiment out of a gmot one"),
    "doctor": ("espnet_gmot.doctor", "what is installed, what is missing, and the command that mends it"),
    "align": (
        "espnet_gmot.report.align_cli",
        "how an experiment couples a recording with its text: a picture, times",
    ),
    "report": ("espnet_gmot.report.cli", "a CER table of several experiments, for readers and for scripts"),
}


#: command -> the extra that has all it imports, where that isn't ``recipe``; "" needs none
EXTRAS = {"doctor": "", "report": "", "dump-teacher": "teacher", "pretrain-plm": "teacher", "demo-corpus": "demo"}


def advice(name: str) -> str:
    """How to get what a command lacks.

    Args:
        name: of the command.
    """
    extra = EXTRAS.get(name, "recipe")
    get = f"pip install 'espnet_gmot[{extra}]' (in a clone: activate what `make env` makes); " if extra else ""
    return f"{get}`python3 -m espnet_gmot doctor` tells more"


def usage() -> str:
    """The help text that lists every command, and the extra that each needs."""
    rows = "\n".join(
        f"  {name:15}{what}" + (f" [{extra}]" if (extra := EXTRAS.get(name, "recipe")) else "")
        for name, (_, what) in COMMANDS.items()
    )
    return (
        "usage: python3 -m espnet_gmot COMMAND [OPTIONS]     (COMMAND --help tells more)\n"
        "       python3 -m espnet_gmot -m MODULE [ARGS]      run an ESPnet module with the plugin registered\n"
        "       python3 -m espnet_gmot SCRIPT.py [ARGS]      run a script likewise\n\n"
        f"commands, [with the extra that they need: pip install 'espnet_gmot[recipe]']:\n{rows}"
    )


def launch(argv: list[str]) -> None:
    """Run ``-m MODULE ARGS`` or ``SCRIPT ARGS`` as the Python interpreter would.

    Args:
        argv: the words after ``python3 -m espnet_gmot``.

    Raises:
        UserError: where ``-m`` stands without a module.
    """
    if argv[0] == "-m":
        if len(argv) < 2:
            raise UserError("-m needs a module, such as: python3 -m espnet_gmot -m espnet2.bin.asr_train --help")
        sys.argv = argv[1:]
        # alter_sys stays False: with True, multiprocessing finds no main module to import in spawned workers
        if argv[1].startswith("espnet2.bin."):
            from espnet_gmot.hosts.entry import instead

            if instead(argv[1], argv[2:]):
                return
        runpy.run_module(argv[1], run_name="__main__", alter_sys=False)
        _leave_process_group()
    else:
        if not Path(argv[0]).is_file():
            raise UserError(f"{argv[0]}: no such script")
        sys.argv = argv
        sys.path.insert(0, str(Path(argv[0]).resolve().parent))
        # In the main module itself, whose __spec__ stays the launcher's: a spawned worker then imports the launcher,
        # and what the script defined can be pickled. runpy.run_path would put another main module in its place.
        os.environ[_SCRIPT] = os.path.abspath(argv[0])
        scope = sys.modules["__main__"].__dict__
        scope.update(__file__=argv[0], __name__="__main__")
        exec(compile(Path(argv[0]).read_bytes(), argv[0], "exec"), scope)  # noqa: S102 - the script that the user gave


def _leave_process_group() -> None:
    """What ESPnet never does: a process that ends inside torch's process group may abort when all its work is done."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def main(argv: list[str] | None = None) -> int:
    """Dispatch a command or the launcher.

    Args:
        argv: the words after ``python3 -m espnet_gmot``; those of the process by default.

    Returns:
        The exit status: 0 success, 1 an error that the user can mend, 2 bad usage.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # a sign that the locale lacks is no reason to end
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    name = argv[0] if argv else ""
    if not name.endswith(".py"):  # of a script that started this: not what workers of this one are to import
        os.environ.pop(_SCRIPT, None)
    try:
        if name not in ("", "-h", "--help", "doctor"):
            versions.check()
        if name == "-m" or name.endswith(".py"):
            launch(argv)
            return 0
        if name in ("", "-h", "--help"):
            print(usage())
            return 0 if name else 2
        if name not in COMMANDS:
            print(f"espnet_gmot: unknown command '{name}'{closest(name, tuple(COMMANDS))}", file=sys.stderr)
            return 2
        refuse_dashes(argv[1:])
        return importlib.import_module(COMMANDS[name][0]).main(argv[1:]) or 0
    except ModuleNotFoundError as error:
        if name not in COMMANDS or (error.name or "espnet_gmot").startswith("espnet_gmot"):
            raise
        print(f"espnet_gmot {name}: error: {sys.executable} has no {error.name}: {advice(name)}", file=sys.stderr)
        return 1
    except UserError as error:
        where = f"espnet_gmot {name}" if name in COMMANDS else "espnet_gmot"
        print(f"{where}: error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if (full := disk_full(error)) is None:
            raise
        print(f"espnet_gmot: error: {full}", file=sys.stderr)
        return 1


if __name__ == "__mp_main__":
    # a worker that ESPnet spawned, one for each GPU, or that a launched script spawned
    end_with(os.getppid())
    if _SCRIPT in os.environ:  # it needs what the script defines, as under plain Python
        globals().update(runpy.run_path(os.environ[_SCRIPT], run_name="__mp_main__"))

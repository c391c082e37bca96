"""Adds ``model: gmot`` and ``frontend: hf_speech`` to ESPnet's choices, without touching ESPnet's files.

It also has ESPnet write the files of a training whole (see :mod:`espnet_gmot.hosts.checkpoints`), and keeps ESPnet's
import from asking the network for what nobody wants.

Importing ``espnet2.tasks.asr`` takes many seconds, and most of ESPnet's commands never do. So registration waits for
that import: :func:`register` costs nothing until ESPnet asks for its ASR task. ESPnet3 has an ASR task of its own, with
choices of its own: it is waited for likewise.
"""

import functools
import importlib.abc
import importlib.machinery
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

#: Modules with lists of models and frontends: of ESPnet2 (and ESPnet-EZ, which builds on it), of ESPnet3.
TASKS = ("espnet2.tasks.asr", "espnet3.systems.esp2_asr.task")


def register() -> None:
    """Make ESPnet know the plugin: now where its modules are imported already, else as soon as they are.

    Calling it again changes nothing.
    """
    for name, act in _ACTIONS.items():
        if name in sys.modules:
            act(sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def add_choices(task: ModuleType) -> None:
    """Add the hosts to the choices of an imported ASR task module.

    Args:
        task: one of the modules :data:`TASKS`.

    Raises:
        TypeError: where a host isn't of the class that ESPnet's choices ask for (ClassChoices checks its own
            constructor's classes only).
    """
    from espnet_gmot.hosts.frontend import HFSpeechFrontend
    from espnet_gmot.hosts.model import ESPnetGMOTASRModel

    for choices, name, host in (
        (task.model_choices, "gmot", ESPnetGMOTASRModel),
        (task.frontend_choices, "hf_speech", HFSpeechFrontend),
    ):
        if not issubclass(host, choices.base_type):
            raise TypeError(f"{host.__name__} is no {choices.base_type.__name__}: ESPnet's --{choices.name} needs one")
        choices.classes[name] = host
    _pass_symbols(task.ASRTask)


def _pass_symbols(task: Any) -> None:
    """Let the model know ``--non_linguistic_symbols``, which ESPnet gives to its tokenizer alone."""
    build = task.build_model
    if hasattr(build, "gmot"):
        return

    @functools.wraps(build.__func__)
    def build_model(cls: type, args: Namespace) -> Any:
        """The model, as ESPnet builds it."""
        model = build.__func__(cls, args)
        if hasattr(model, "gmot_config"):
            model.symbols = getattr(args, "non_linguistic_symbols", None)
        return model

    marked: Any = build_model
    marked.gmot = True
    task.build_model = classmethod(marked)


def _guard(module: ModuleType) -> None:
    from espnet_gmot.hosts.checkpoints import guard

    guard(module)


def _ask_first(nltk: Any) -> None:
    """Keep g2p_en, which ESPnet imports whatever it trains, from fetching NLTK's data; who needs phones is told so."""
    fetch = nltk.download
    if hasattr(fetch, "gmot"):
        return

    @functools.wraps(fetch)
    def download(*args: Any, **kwargs: Any) -> Any:
        """NLTK's own, unless it is a module's import that asks."""
        if sys._getframe(1).f_globals.get("__name__", "").startswith("g2p_en"):
            return False
        return fetch(*args, **kwargs)

    nltk.download = download
    nltk.download.gmot = True


#: What to do with a module of ESPnet's, or one that ESPnet imports, once it is imported.
_ACTIONS: dict[str, Callable[[ModuleType], None]] = {
    **dict.fromkeys(TASKS, add_choices),
    "espnet2.train.trainer": _guard,
    "espnet2.main_funcs.average_nbest_models": _guard,
    "espnet2.tasks.abs_task": _guard,
    "espnet2.torch_utils.load_pretrained_model": _guard,
    "nltk": _ask_first,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds a module of ESPnet's as Python would, and acts on it once it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec, with the action behind its execution; None for any other module."""
        if fullname not in _ACTIONS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_then_act(module: ModuleType) -> None:
                """Run the module, then do with it what was registered."""
                run(module)
                _ACTIONS[fullname](module)

            spec.loader.exec_module = run_then_act  # type: ignore[method-assign]  # this one loader only
        return spec

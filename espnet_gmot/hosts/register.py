"""Adds ``model: gmot`` and ``frontend: hf_speech`` to ESPnet's choices, without touching ESPnet.

Importing ``espnet2.tasks.asr`` takes many seconds, and most of ESPnet's commands never do. So registration waits for
that import: :func:`register` costs nothing until ESPnet asks for its ASR task. ESPnet3 has an ASR task of its own, with
choices of its own: it is waited for likewise.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

#: Modules with lists of models and frontends: of ESPnet2 (and ESPnet-EZ, which builds on it), of ESPnet3.
TASKS = ("espnet2.tasks.asr", "espnet3.systems.esp2_asr.task")


def register() -> None:
    """Make ESPnet know the plugin: now where an ASR task is imported already, else as soon as it is.

    Calling it again changes nothing.
    """
    for task in TASKS:
        if task in sys.modules:
            add_choices(sys.modules[task])
    if not any(isinstance(finder, _TaskFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TaskFinder())


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


class _TaskFinder(importlib.abc.MetaPathFinder):
    """Finds an ASR task as Python would, and registers the hosts once it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The task's own spec, with registration behind its execution; None for any other module."""
        if fullname not in TASKS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_then_register(module: ModuleType) -> None:
                run(module)
                add_choices(module)

            spec.loader.exec_module = run_then_register
        return spec

"""``doctor``: what is installed, what is missing, and for each missing piece the one command that mends it.

Quick by default: it looks at installed distributions and files and imports torch alone. ``--full`` also imports
ESPnet's ASR task, to see that the plugin is among its choices, and runs the teacher on one sentence.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.version import __version__

REQUIRED, OPTIONAL = "missing", "absent"
# 202511 is the last line for Python 3.11, and no resolver can install it together with torch: see requirements.txt
ESPNET = "espnet==202611" if sys.version_info >= (3, 12) else "--no-deps espnet==202511"
#: distribution -> (what it is for, needed?, arguments of pip)
PACKAGES = {
    "torch": ("everything", True, "torch"),
    "numpy": ("everything", True, "numpy"),
    "espnet": ("training and decoding", True, ESPNET),
    "torchaudio": ("ESPnet", True, "--no-deps torchaudio==2.11.0"),
    "PyYAML": ("configurations", True, "PyYAML"),
    "soundfile": ("audio files", True, "soundfile"),
    "kaldiio": ("dump-teacher and ESPnet", True, "kaldiio"),
    "transformers": ("teachers, frontend hf_speech", True, "transformers"),
    "numba": ("backend: numba, the fast one on a CPU", False, "numba"),
    "POT": ("backend: pot, the reference", False, "POT"),
    "sentencepiece": ("token_type: bpe", False, "sentencepiece==0.2.0"),
    "matplotlib": ("plots", False, "matplotlib"),
    "tqdm": ("progress bars", True, "tqdm"),
    "espeakng-loader": ("demo-corpus", False, "espeakng-loader"),
}
AISHELL_GB, LITTLE_GB = 100, 2
"""Free disk for all of AISHELL-1 (estimated: archive, tree, audio at three speeds, experiments), and for any run."""
CHECKOUT = "git clone --depth 1 -b v.202511 https://github.com/espnet/espnet && export ESPNET_ROOT=$PWD/espnet"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        name: what was looked at.
        detail: what was found, or what it would be good for.
        status: ``ok``, ``missing`` (needed) or ``absent`` (works without).
        mend: the command that mends it; empty where all is well.
    """

    name: str
    detail: str
    status: str = "ok"
    mend: str = ""


def examine(args: argparse.Namespace) -> Iterator[Finding]:
    """Every finding, in the order of the report.

    Args:
        args: the parsed options of :func:`parser`.
    """
    yield python()
    yield Finding("espnet_gmot", f"{__version__} in {Path(__file__).parent}")
    for name in PACKAGES:
        yield package(name)
    yield hooks_full() if args.full else hooks()
    yield gpu()
    yield scoring(args.espnet_root)
    yield checkout(args.espnet_root)
    if args.teacher:
        yield teacher_runs(args.teacher) if args.full else teacher(args.teacher)
    yield disk(args.workdir, AISHELL_GB if args.aishell else LITTLE_GB)
    yield aishell(args.aishell)


def python() -> Finding:
    """The interpreter, and the line of ESPnet that goes with it."""
    return Finding("python", f"{platform.python_version()} at {sys.executable}, goes with {ESPNET.split()[-1]}")


def package(name: str) -> Finding:
    """A distribution's version.

    Args:
        name: a key of :data:`PACKAGES`.
    """
    purpose, needed, words = PACKAGES[name]
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, f"for {purpose}", REQUIRED if needed else OPTIONAL, f"pip install {words}")


def hooks() -> Finding:
    """Whether ESPnet's ASR task is where the plugin waits for it. Imports nothing of ESPnet's tasks."""
    from espnet_gmot.hosts.register import TASKS, register

    register()
    waiting = [task for task in TASKS if _module_exists(task)]
    if waiting:
        return Finding("hooks", f"gmot and hf_speech wait for {', '.join(waiting)} (--full imports it)")
    return Finding("hooks", f"none of {', '.join(TASKS)} is installed", REQUIRED, f"pip install {ESPNET}")


def hooks_full() -> Finding:
    """Whether ESPnet, imported, offers the plugin's model and frontend."""
    from espnet_gmot.hosts.register import register

    register()
    try:
        import espnet2.tasks.asr as task
    except (ImportError, OSError) as error:  # OSError: a torchaudio that is linked with an absent CUDA
        return Finding("hooks", f"ESPnet can't be imported: {error}", REQUIRED, "make -B env")
    known = "gmot" in task.model_choices.classes and "hf_speech" in task.frontend_choices.classes
    if known:
        return Finding("hooks", "ESPnet offers model: gmot and frontend: hf_speech")
    return Finding("hooks", "ESPnet was imported without the plugin", REQUIRED, "python3 -m espnet_gmot doctor --full")


def gpu() -> Finding:
    """The GPUs that torch sees; a driver that torch can't use is worth a word."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("gpu", f"torch can't be imported: {error}", REQUIRED, "pip install --force-reinstall torch")
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        first = torch.cuda.get_device_properties(0)
        return Finding(
            "gpu", f"{count} × {first.name}, {first.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        )
    if shutil.which("nvidia-smi"):
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch can't use it"
        return Finding("gpu", f"nvidia-smi is here, but {why}", OPTIONAL, "pip install --force-reinstall torch")
    return Finding("gpu", f"none: training runs on {os.cpu_count()} CPU cores (run.sh --ngpu 0)")


def scoring(espnet_root: Path | None) -> Finding:
    """sclite, or jiwer in its place."""
    places = [Path("/usr/lib/sctk/bin")] + ([espnet_root / "tools/sctk/bin"] if espnet_root else [])
    found = shutil.which("sclite") or shutil.which("sclite", path=os.pathsep.join(map(str, places)))
    if found:
        return Finding("scoring", f"sclite at {found}")
    try:
        return Finding(
            "scoring", f"jiwer {importlib.metadata.version('jiwer')} (asr.sh itself wants sclite: apt's sctk)"
        )
    except importlib.metadata.PackageNotFoundError:
        return Finding("scoring", "neither sclite nor jiwer", REQUIRED, "pip install jiwer")


def checkout(root: Path | None) -> Finding:
    """An ESPnet checkout with asr.sh; without one, the recipe command does the same stages.

    Args:
        root: its folder, or None.
    """
    if root is None:
        detail = (
            "none given: `python3 -m espnet_gmot recipe` does asr.sh's stages; --espnet_root or ESPNET_ROOT for one"
        )
        return Finding("checkout", detail, OPTIONAL, CHECKOUT)
    if (root / "egs2/TEMPLATE/asr1/asr.sh").is_file():
        return Finding("checkout", str(root))
    return Finding("checkout", f"{root}: has no egs2/TEMPLATE/asr1/asr.sh", REQUIRED, CHECKOUT)


def teacher(name: str) -> Finding:
    """A teacher's files: a folder of dump-teacher, a Hugging Face folder, or a hub name in the local cache.

    Args:
        name: folder or hub name.
    """
    path = Path(name)
    if (path / "teacher.json").is_file():
        scp = path / "teacher.scp"
        if scp.is_file() and scp.stat().st_size:
            return Finding("teacher", f"{scp}, written by dump-teacher")
        return Finding("teacher", f"{path}: teacher.scp is missing", REQUIRED, _dump(path))
    if path.is_dir():
        weights = [f for pattern in ("*.safetensors", "pytorch_model*.bin") for f in path.glob(pattern)]
        tokens = [f for pattern in ("tokenizer*", "vocab*", "*.model") for f in path.glob(pattern)]
        parts = {"config.json": (path / "config.json").is_file(), "weights": weights, "tokenizer": tokens}
        lacking = [part for part, found in parts.items() if not found]
        if not lacking:
            return Finding("teacher", f"{path} (--full runs it)")
        return Finding(
            "teacher", f"{path}: lacks {', '.join(lacking)}", REQUIRED, f"hf download NAME --local-dir {path}"
        )
    if importlib.util.find_spec("huggingface_hub") is None:
        return Finding("teacher", f"{name}: no such folder", REQUIRED, "pip install transformers")
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return Finding("teacher", f"{name}: no such folder, and no hub name", REQUIRED, "ls -d " + str(path.parent))
    if isinstance(cached, str):
        return Finding("teacher", f"{name}, cached in {Path(cached).parent} (--full runs it)")
    return Finding("teacher", f"{name}: no such folder, not in the hub's cache", REQUIRED, f"hf download {name}")


def teacher_runs(name: str) -> Finding:
    """Whether the teacher gives features of a sentence.

    Args:
        name: folder or hub name; a folder of dump-teacher is looked at only.
    """
    found = teacher(name)
    if found.status != "ok" or (Path(name) / "teacher.json").is_file():
        return found
    try:
        from espnet_gmot.teacher.plm import PLMTeacher

        features, lengths = PLMTeacher(name)(["今天天气很好"])
    except (UserError, ImportError, OSError, ValueError) as error:
        return Finding("teacher", f"{name}: {error}", REQUIRED, f"hf download {name}")
    return Finding("teacher", f"{name}: {lengths[0]} rows for six characters, teacher_width: {features.shape[-1]}")


def disk(folder: Path, needed: int) -> Finding:
    """Free space where the work happens.

    Args:
        folder: any folder on that disk.
        needed: GiB.
    """
    free = shutil.disk_usage(folder).free / 2**30
    if free >= needed:
        return Finding("disk", f"{free:.0f} GiB free in {folder.absolute()}")
    status = REQUIRED if free < LITTLE_GB else OPTIONAL
    detail = f"{free:.1f} GiB free in {folder.absolute()}, about {needed} GiB needed"
    return Finding("disk", detail, status, "run.sh --dumpdir and --expdir on a larger disk")


def aishell(data: Path | None) -> Finding:
    """AISHELL-1: a tree, or the archive as it is distributed.

    Args:
        data: folder or archive, or None.
    """
    get = "python3 -m espnet_gmot prepare-data --help     # downloads it by --data_url"
    if data is None:
        return Finding("aishell", "none given: --aishell or AISHELL; run_demo.sh needs none", OPTIONAL, get)
    for path in (data / "data_aishell", data):
        if (path / "wav").is_dir() and (path / "transcript/aishell_transcript_v0.8.txt").is_file():
            return Finding("aishell", str(path))
    for path in (data / "data_aishell.tgz", data):
        if path.is_file():
            return Finding("aishell", f"{path} (prepare-data unpacks it)")
    return Finding("aishell", f"{data}: neither data_aishell/{{wav,transcript}} nor data_aishell.tgz", REQUIRED, get)


def _module_exists(name: str) -> bool:
    """Whether a module's file is there, without importing more than its top package (finding it would run the rest)."""
    top, *parts = name.split(".")
    spec = importlib.util.find_spec(top)
    folders: Iterable[str] = spec.submodule_search_locations or () if spec else ()
    return any(Path(folder, *parts).with_suffix(".py").is_file() for folder in folders)


def _dump(path: Path) -> str:
    return f"python3 -m espnet_gmot dump-teacher --model NAME --text data/SET/text --out {path}"


def report(findings: Iterable[Finding], write: Callable[[str], object] = print) -> int:
    """Print findings as they come.

    Args:
        findings: what was found.
        write: where lines go.

    Returns:
        1 if something needed is missing, else 0.
    """
    missing = 0
    for finding in findings:
        missing += finding.status == REQUIRED
        write(f"{finding.status:8} {finding.name:16} {finding.detail}")
        if finding.mend:
            write(f"{'':8} {'':16} → {finding.mend}")
    write(f"\n{missing} missing" if missing else "\nAll that is needed is here.")
    return 1 if missing else 0


def parser() -> argparse.ArgumentParser:
    """The options of ``doctor``."""
    result = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot doctor",
        description="Say what is installed and what is missing, and the command that mends it. "
        "Exit status 1 where something needed is missing.",
    )
    variables = {name: os.environ.get(name) for name in ("ESPNET_ROOT", "AISHELL")}
    roots = {name: Path(value) if value else None for name, value in variables.items()}
    result.add_argument("--full", action="store_true", help="also import ESPnet and run the teacher (a minute)")
    result.add_argument("--teacher", metavar="DIR_OR_NAME", help="language model, or folder of dump-teacher")
    result.add_argument("--espnet_root", type=Path, default=roots["ESPNET_ROOT"], metavar="DIR", help="or ESPNET_ROOT")
    result.add_argument("--aishell", type=Path, default=roots["AISHELL"], metavar="PATH", help="AISHELL-1, or AISHELL")
    result.add_argument("--workdir", type=Path, default=Path("."), metavar="DIR", help="folder whose disk is checked")
    return result


def main(argv: list[str] | None = None) -> int:
    """Examine and report.

    Args:
        argv: the words after ``doctor``.

    Returns:
        1 if something needed is missing, else 0.

    Raises:
        UserError: ``--workdir`` isn't a folder.
    """
    args = parser().parse_args(argv)
    if not args.workdir.is_dir():
        raise UserError(f"--workdir {args.workdir}: no such folder: give the one that you will work in")
    return report(examine(args))

"""What is installed: Python, packages, ESPnet with the plugin, torch's GPUs, scoring."""

import importlib.util
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path

from espnet_gmot import versions
from espnet_gmot.doctor.finding import OPTIONAL, PIP, REQUIRED, Finding, requires, version

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
    "numba": ("ESPnet, and backend: numba, the fast one on a CPU", True, "numba"),
    "sentencepiece": ("ESPnet, and token_type: bpe", True, "sentencepiece==0.2.0"),
    "POT": ("backend: pot, the reference", False, "POT"),
    "matplotlib": ("plots", False, "matplotlib"),
    "tqdm": ("progress bars", True, "tqdm"),
    "espeakng-loader": ("demo-corpus", False, "espeakng-loader"),
}
#: What else importing espnet 202511's ASR task imports; it is installed without its dependencies.
ESPNET_NEEDS = (
    *("scipy", "librosa", "humanfriendly", "typeguard", "h5py", "filelock", "packaging", "torch_complex", "nltk"),
    *("hydra-core", "opt-einsum", "ci_sdr", "fast-bss-eval", "jamo", "inflect<6"),
)
HOME = Path(__file__).resolve().parents[2]
"""The clone that this package lies in, if it lies in one."""


def python() -> Finding:
    """The interpreter, what is known of its version, and the line of ESPnet that goes with it."""
    found = _judged("python", platform.python_version())
    return replace(found, detail=f"{found.detail}; at {sys.executable}, goes with {ESPNET.split()[-1]}")


def _judged(name: str, found: str) -> Finding:
    """A version, with what is known of it where it matters."""
    if name not in versions.SUPPORTED:
        return Finding(name, found)
    status, mend = (REQUIRED, versions.mend(name)) if versions.refused(name, found) else ("ok", "")
    return Finding(name, f"{found}, {versions.verdict(name, found)}", status, mend)


def package(name: str) -> Finding:
    """A distribution's version.

    Args:
        name: a key of :data:`PACKAGES`.
    """
    purpose, needed, words = PACKAGES[name]
    if found := version(name):
        return _judged(name, found)
    mend = environment() if name in ("torch", "espnet") else f"{PIP} {words}"
    if name == "torchaudio" and (torch := version("torch")):
        mend = f"{PIP} --no-deps torchaudio=={_torchaudio(torch)}"
    return Finding(name, f"for {purpose}", REQUIRED if needed else OPTIONAL, mend)


def _torchaudio(torch: str) -> str:
    """The torchaudio that goes with a torch: of the same number, and 2.11 with every later one."""
    number = torch.partition("+")[0]
    return number if versions.key(number) < (2, 11) else "2.11.0"


def espnet_needs() -> Finding:
    """Whether the distributions that ESPnet imports are there: pip installed it without them."""
    needs = [*ESPNET_NEEDS]
    if any(word.startswith("pytorch-wpe") for word in requires("espnet")):  # 202301 and 202308 import it
        needs.append("pytorch_wpe")
    lacking = [words for words in needs if not version(words.partition("<")[0])]
    if not lacking:
        return Finding("ESPnet's imports", f"all {len(needs)} there")
    return Finding("ESPnet's imports", ", ".join(lacking), REQUIRED, f"{PIP} {shlex.join(lacking)}")


def espnet_asks() -> Finding:
    """Whether the versions here are those that the installed ESPnet asks for; a later numpy breaks an old ESPnet."""
    asked = {word.group(1): word.group(2) for word in map(_PIN.match, requires("espnet")) if word}
    others = []
    for name, bounds in asked.items():
        found = version(name)
        if found and not all(_holds(found, bound.strip()) for bound in bounds.split(",")):
            others.append((name, bounds, found))
    if not others:
        return Finding("ESPnet's bounds", f"{', '.join(sorted(asked)) or 'none'}: as espnet {version('espnet')} asks")
    detail = "; ".join(f"{name} {found}, espnet {version('espnet')} asks for {b}" for name, b, found in others)
    mend = f"{PIP} {shlex.join(f'{name}{bounds}' for name, bounds, _ in others)}"
    return Finding("ESPnet's bounds", detail, OPTIONAL, mend)


#: Of ESPnet's requirements those that matter to recognition; it also asks for a setuptools that no torch can bear.
_PIN = re.compile(r"(numpy|librosa|sentencepiece|typeguard)\s*\(?([<>=!][^;)]*?)\)?\s*$")


def _holds(found: str, bound: str) -> bool:
    """Whether a version lies within one bound, such as ``<1.24``."""
    operator, number = re.findall(r"^([<>=!]=?)(.*)", bound)[0]
    compare = {"<": lt, "<=": le, ">": gt, ">=": ge, "==": eq, "!=": ne}[operator]
    width = max(len(versions.key(found)), len(versions.key(number.strip())))
    padded = [(*versions.key(text), *[0] * width)[:width] for text in (found, number.strip())]
    return bool(compare(*padded))


def asr_sh() -> Finding:
    """What the scripts of a checkout's asr.sh need beside ESPnet: resampy to format audio, sox to perturb speed."""
    lacking = [] if version("resampy") else ["resampy"]
    mends = [f"{PIP} resampy"] if lacking else []
    if not shutil.which("sox"):
        lacking.append("sox (asr.sh --speed_perturb_factors)")
        mends.append("sudo apt-get install sox")
    if not lacking:
        return Finding("asr.sh's needs", "resampy and sox are there")
    return Finding(
        "asr.sh's needs", ", ".join(lacking), REQUIRED if "resampy" in lacking else OPTIONAL, " && ".join(mends)
    )


def environment() -> str:
    """The command that gets a whole environment: the clone's, which is there already or not, or what pip can do."""
    venv = HOME / ".venv"
    activate = f". {shlex.quote(str(venv / 'bin/activate'))}"
    if (venv / ".done").is_file() and Path(sys.prefix).resolve() != venv.resolve():
        return activate
    if (HOME / "Makefile").is_file() and sys.version_info < (3, 12):
        return f"make -C {shlex.quote(str(HOME))} -B env && {activate}"
    return f"{PIP} {ESPNET}"


def hooks() -> Finding:
    """Whether ESPnet's ASR task is where the plugin waits for it. Imports nothing of ESPnet's tasks."""
    from espnet_gmot.hosts.register import TASKS, register

    register()
    waiting = [task for task in TASKS if _module_exists(task)]
    if waiting:
        return Finding("hooks", f"gmot and hf_speech wait for {', '.join(waiting)} (--full imports it)")
    return Finding("hooks", f"none of {', '.join(TASKS)} is installed", REQUIRED, environment())


def hooks_full() -> Finding:
    """Whether ESPnet, imported, offers the plugin's model and frontend."""
    from espnet_gmot.hosts.register import register

    register()
    try:
        import espnet2.tasks.asr as task
    except (ImportError, OSError) as error:  # OSError: a torchaudio that is linked with an absent CUDA
        return Finding("hooks", f"ESPnet can't be imported: {error}", REQUIRED, environment())
    known = "gmot" in task.model_choices.classes and "hf_speech" in task.frontend_choices.classes
    if known:
        return Finding("hooks", "ESPnet offers model: gmot and frontend: hf_speech")
    return Finding("hooks", "ESPnet was imported without the plugin", REQUIRED, "python3 -m espnet_gmot doctor --full")


def gpu() -> Finding:
    """The GPUs that torch sees; a driver that torch can't use is worth a word."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("gpu", f"torch can't be imported: {error}", REQUIRED, environment())
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        first = torch.cuda.get_device_properties(0)
        seen = f"{count} × {first.name}, {first.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        if not (triton := version("triton")):
            asked = next((word.partition(";")[0].strip() for word in requires("torch") if "triton" in word), "triton")
            return Finding("gpu", f"{seen}; no Triton: the solver is slower", OPTIONAL, f"{PIP} {shlex.quote(asked)}")
        return Finding("gpu", f"{seen}, Triton {triton}")
    if shutil.which("nvidia-smi"):
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch can't use it"
        mend = f"python3 -m pip uninstall -y torch && {PIP} torch=={torch.__version__.partition('+')[0]}"
        return Finding("gpu", f"nvidia-smi is here, but {why}", OPTIONAL, mend)
    return Finding("gpu", f"none: training runs on {os.cpu_count()} CPU cores (run.sh --ngpu 0)")


def scoring(espnet_root: Path | None) -> Finding:
    """sclite, or jiwer in its place; a checkout's asr.sh can't do without sclite."""
    places = [Path("/usr/lib/sctk/bin")] + ([espnet_root / "tools/sctk/bin"] if espnet_root else [])
    if found := shutil.which("sclite"):
        return Finding("scoring", f"sclite at {found}")
    # run.sh finds it there, and a checkout's path.sh its own; asr.sh by itself asks PATH
    if found := shutil.which("sclite", path=os.pathsep.join(map(str, places))):
        return Finding("scoring", f"sclite at {found}, not on PATH: for asr.sh, export PATH={Path(found).parent}:$PATH")
    jiwer, debian = version("jiwer"), "sudo apt-get install sctk"
    if espnet_root:
        return Finding("scoring", f"no sclite, which asr.sh of {espnet_root} scores by", REQUIRED, debian)
    if jiwer:
        return Finding("scoring", f"jiwer {jiwer}; no sclite, which only a checkout's asr.sh needs ({debian})")
    return Finding("scoring", "neither sclite nor jiwer", REQUIRED, f"{PIP} jiwer")


def _module_exists(name: str) -> bool:
    """Whether a module's file is there, without importing more than its top package (finding it would run the rest)."""
    top, *parts = name.split(".")
    spec = importlib.util.find_spec(top)
    folders: Iterable[str] = spec.submodule_search_locations or () if spec else ()
    return any(Path(folder, *parts).with_suffix(".py").is_file() for folder in folders)

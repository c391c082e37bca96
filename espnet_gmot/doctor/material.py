"""What there is to work with: an ESPnet checkout, a teacher, disk space, AISHELL-1."""

import importlib.util
import json
import shlex
import shutil
from pathlib import Path

from espnet_gmot.doctor.finding import OPTIONAL, PIP, REQUIRED, Finding
from espnet_gmot.doctor.software import ESPNET
from espnet_gmot.errors import UserError
from espnet_gmot.hub import fault, is_folder
from espnet_gmot.kaldi.tables import read_table

AISHELL_GB, LITTLE_GB = 100, 2
"""Free disk for all of AISHELL-1 (estimated: archive, tree, audio at three speeds, experiments), and for any run."""
CHECKOUT = (
    f"git clone --depth 1 -b v.{ESPNET.rpartition('=')[2]} https://github.com/espnet/espnet && "
    "export ESPNET_ROOT=$PWD/espnet"
)


def surrounding_checkout() -> Path | None:
    """The checkout in whose egs2/ the current folder lies, or to whose asr.sh a link in it leads; None elsewhere."""
    places = [*Path.cwd().parents, *(Path("asr.sh").resolve().parents if Path("asr.sh").is_file() else ())]
    return next((path for path in places if (path / "egs2/TEMPLATE/asr1/asr.sh").is_file()), None)


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
        return _dumped(path)
    try:
        folder = is_folder(name)
    except UserError:
        return Finding("teacher", f"{name}: no such folder", REQUIRED, _download(name))
    if folder:
        found = fault(path.expanduser())
        if found is None:
            return Finding("teacher", f"{path} (--full runs it)")
        return Finding("teacher", f"{path}: {found[0]}", REQUIRED, _mend(name, found[1]))
    if importlib.util.find_spec("huggingface_hub") is None:
        return Finding(
            "teacher", f"{name}: no such folder, and no hub without transformers", REQUIRED, f"{PIP} transformers"
        )
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        return Finding("teacher", f"{name}, cached in {Path(cached).parent} (--full runs it)")
    return Finding("teacher", f"{name}: no such folder, not in the hub's cache", REQUIRED, f"hf download {name}")


def _dumped(path: Path) -> Finding:
    """A folder of dump-teacher: its index and the archives that this names."""
    scp = path / "teacher.scp"
    table = read_table(scp) if scp.is_file() and scp.stat().st_size else {}
    arks = {place.rpartition(":")[0] for place in table.values()}
    gone = sorted(ark for ark in arks if not Path(ark).is_file())
    if table and not gone:
        return Finding("teacher", f"{scp}, written by dump-teacher: {len(table)} utterances")
    what = f"{gone[0]} is missing" if gone else "teacher.scp is missing"
    info = json.loads((path / "teacher.json").read_text(encoding="utf8"))
    layers = [str(layer) for layer in (info["layer"] if isinstance(info["layer"], list) else [info["layer"]])]
    words = ["--model", info["model"], "--layer", *layers, "--text", info["text"], "--out", str(path)]
    words += ["--special_tokens"] if info["special_tokens"] else []
    for option in ("normalise", "precision"):
        words += [f"--{option}", info[option]] if option in info else []
    if (path / "teacher_stats.npz").is_file():  # the training set's, if this is another
        words += ["--stats", str(path)]
    return Finding("teacher", f"{path}: {what}", REQUIRED, f"python3 -m espnet_gmot dump-teacher {shlex.join(words)}")


def _mend(folder: str, mend: str) -> str:
    """The command for a folder's fault; for a download, the whole of it."""
    return _download(folder) if mend.startswith("download") else mend


def _download(folder: str) -> str:
    return f"hf download bert-base-chinese --local-dir {shlex.quote(folder)}    # or another language model"


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
        return Finding(
            "teacher", f"{name}: {error}", REQUIRED, _download(name) if Path(name).is_dir() else f"hf download {name}"
        )
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
    return Finding("disk", detail, status, "run.sh --workdir DIR    # on a larger disk")


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

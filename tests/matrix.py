"""Try the package with every set-up of a table: one environment a row, the same tests in each, the results in docs/.

``python3 -m tests.matrix`` installs what a row lacks, runs its tests and deletes its environment; torch, the large
part, stays for the next row that wants it. What has a result is not run again (delete it from docs/matrix.json for
that); all rows take hours. ``--python`` runs a row in an environment that is there already, whose versions of what the
row names must be the row's; ``--note`` says in the table what it is.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "docs/matrix.json", ROOT / "docs/espnet_lines.md"
BEGIN, END = "<!-- written by make matrix -->", "<!-- end of what make matrix wrote -->"

#: What the tests and ESPnet's ASR import besides the packages that a row names.
COMMON = (
    *("pytest>=8", "hypothesis>=6", "POT>=0.9.5", "tqdm", "PyYAML", "soundfile", "soxr", "jiwer", "kaldiio>=2.18.1"),
    *("scipy", "humanfriendly", "configargparse", "h5py", "filelock", "packaging", "torch_complex", "nltk>=3.4.5"),
    *(
        "hydra-core",
        "opt-einsum",
        "espnet_tts_frontend",
        "ci_sdr",
        "fast-bss-eval==0.1.3",
        "editdistance",
        "jamo==0.4.1",
    ),
    *("inflect<6", "pytorch_wpe", "matplotlib", "tensorboard", "resampy", "six", "lightning-utilities"),
)
#: What ESPnet 202301 to 202412 pin; the later ones want numpy 2.
OLD = (
    "numpy==1.23.5",
    "numba==0.58.1",
    "librosa==0.9.2",
    "typeguard==2.13.3",
    "sentencepiece==0.1.97",
    "setuptools<74",
)
NEW = ("numpy>=2", "numba", "librosa>=0.10.2", "typeguard", "setuptools<82")
#: name -> pytest's arguments; together all that a row has to show
CHECKS = {
    "lifecycle": ("tests/hosts/test_lifecycle.py",),
    "frontend": ("tests/hosts/test_frontend.py",),
    "teachers": ("tests/test_loss.py", "tests/test_mix.py", "tests/teacher", "tests/speech"),
    "hub": ("tests/test_hub.py",),
    "transport": ("tests/transport",),
    "hosts": ("tests/hosts/test_model.py", "tests/hosts/test_export.py"),
}


@dataclass(frozen=True)
class Row:
    """A set-up: what pip is asked for."""

    python: str
    torch: str
    espnet: str
    transformers: str
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the row is called on the command line and in the results."""
        return f"{self.python}/{self.torch}/{self.espnet}/{self.transformers}"


ROWS = (
    Row("3.10", "2.1.2", "202412", "4.36.2", OLD),
    Row("3.10", "2.1.2", "202301", "4.30.2", OLD),
    Row("3.10", "2.1.2", "202308", "4.41.2", OLD),
    Row("3.10", "2.1.2", "202402", "4.46.3", OLD),
    Row("3.11", "2.13.0", "202511", "newest", (*NEW, "sentencepiece==0.2.0", "lightning")),
    Row(
        "3.12", "2.14.1", "202611", "newest", (*NEW, "sentencepiece==0.2.1", "omniio", "espnet_model_zoo", "lightning")
    ),
    Row("3.10", "newest", "202511", "4.49.0", (*NEW, "sentencepiece==0.2.0", "lightning")),
    Row(
        "3.13", "2.14.1", "202611", "newest", (*NEW, "sentencepiece==0.2.1", "omniio", "espnet_model_zoo", "lightning")
    ),
)


def interpreter(version: str) -> str:
    """A Python of this version, on PATH or among pyenv's."""
    if found := shutil.which(f"python{version}"):
        done = subprocess.run([found, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
        if done.returncode == 0:  # pyenv's shims exist for versions that are not chosen
            return done.stdout.strip()
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for path in sorted(versions.glob(f"{version}.*/bin/python")):
        return str(path)
    sys.exit(f"matrix: no Python {version}: install it, or put python{version} on PATH")


def venv(folder: Path, version: str) -> list[str]:
    """Make an environment and return its pip command."""
    subprocess.run([interpreter(version), "-m", "venv", folder], check=True)
    python = str(folder / "bin/python")
    return [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--progress-bar", "off"]


def torch_folder(row: Row, work: Path) -> Path:
    """site-packages with the row's torch, installed once for all rows that share it."""
    folder = work / f"torch-{row.python}-{row.torch}"
    if not (folder / ".done").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        pip = venv(folder, row.python)
        subprocess.run([*pip, "torch" if row.torch == "newest" else f"torch=={row.torch}"], check=True)
        (folder / ".done").touch()
    return next(folder.glob("lib/python3*/site-packages"))


def install(row: Row, work: Path) -> Path:
    """The row's environment, if it isn't there already; returns its interpreter."""
    folder, mark = work / "row", work / "row/.name"
    if mark.is_file() and mark.read_text() == row.name:
        return folder / "bin/python"
    shutil.rmtree(folder, ignore_errors=True)
    below = torch_folder(row, work)
    pip = venv(folder, row.python)
    here = next(folder.glob("lib/python3*/site-packages"))
    (here / "torch_below.pth").write_text(f"{below}\n")
    python = folder / "bin/python"
    asked = "import importlib.metadata as m; print(m.version('torch').partition('+')[0])"
    torch = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
    transformers = "transformers" if row.transformers == "newest" else f"transformers=={row.transformers}"
    if not row.espnet:
        common = [word for word in COMMON if word.startswith(("pytest", "hypothesis"))]
        subprocess.run([*pip, *row.packages, *common, transformers], check=True)
        mark.write_text(row.name)
        return python
    subprocess.run([*pip, *row.packages, *COMMON, transformers], check=True)
    audio = torch if tuple(map(int, torch.split(".")[:2])) < (2, 11) else "2.11.0"
    subprocess.run([*pip, "--no-deps", f"espnet=={row.espnet}", f"torchaudio=={audio}"], check=True)
    if subprocess.run([python, "-c", "import torchaudio"], capture_output=True).returncode:
        for path in here.glob("torchaudio/lib/*.so"):  # linked with another CUDA; ASR needs its Python parts only
            path.unlink()
    mark.write_text(row.name)
    return python


Entry = dict[str, Any]


def try_row(
    row: Row,
    work: Path,
    checks: Sequence[str],
    before: Entry | None = None,
    save: Callable[[Entry], object] = lambda _: None,
    python: Path | None = None,
) -> Entry:
    """Install a row and run the checks that have no result yet; returns its entry in the results.

    Args:
        row: the set-up.
        work: folder for environments and logs.
        checks: keys of :data:`CHECKS`.
        before: the entry of an earlier run, whose checks are not run again.
        save: called with the entry after every check.
        python: the interpreter of an environment to use as it is, instead of installing one.
    """
    entry: Entry = before or {"python": row.python, "versions": {}, "checks": {}}
    entry["checks"].pop("installation", None)
    try:
        python = python or install(row, work)
    except subprocess.CalledProcessError as error:
        entry["checks"] = {"installation": result(f"failed: {' '.join(map(str, error.cmd))[-200:]}")}
        return entry
    program = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    names = ["torch", "transformers", "numpy", "numba", "kaldiio", "sentencepiece"]
    names += ["espnet", "librosa"] if row.espnet else []
    entry["versions"] = json.loads(subprocess.check_output([python, "-c", program, *names]))
    version = [python, "-c", "import platform as p; print(p.python_version())"]
    entry["python"] = subprocess.check_output(version, text=True).strip()
    for name in {"torch", "espnet", "transformers"} & entry["versions"].keys():
        there, asked = entry["versions"][name].partition("+")[0], getattr(row, name)
        if asked != "newest" and not f"{there}.".startswith(f"{asked}."):
            sys.exit(f"matrix: {python} has {name} {there}, row {row.name} wants {asked}")
    if not entry["python"].startswith(f"{row.python}."):
        sys.exit(f"matrix: {python} is Python {entry['python']}, row {row.name} wants {row.python}")
    for name in checks:
        if name not in entry["checks"]:
            entry["checks"][name] = result(pytest(python, row, name, CHECKS[name], work))
            save(entry)
    return entry


def result(text: str) -> dict[str, str]:
    """What a check said, with the day and the commit that it tried (``+``: and changes that are not committed)."""
    git = ["git", "-C", ROOT]
    commit = subprocess.check_output([*git, "rev-parse", "--short=7", "HEAD"], text=True).strip()
    # docs/ doesn't count: the results are written there
    changed = subprocess.check_output([*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"])
    commit += "+" * bool(changed)
    return {"result": text, "date": f"{datetime.date.today()}", "commit": commit}


def wanted(row: Row) -> list[str]:
    """The checks of a row: without ESPnet, those that need none."""
    return [name for name in CHECKS if row.espnet or name in ("teachers", "hub", "transport")]


def pytest(python: Path, row: Row, name: str, arguments: Sequence[str], work: Path) -> str:
    """Run tests; returns pytest's own summary, such as ``213 passed, 30 skipped``."""
    log = work / f"{row.name} {name}.log".replace("/", "_").replace(" ", "_").replace(",", "")
    options = [
        "-m",
        "" if row.espnet else "not espnet",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "-o",
        "addopts=--strict-markers",
        "-o",
        "filterwarnings=",  # other versions deprecate other names
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(work / "numba")}
    began = time.monotonic()
    with log.open("w") as stream:
        command = [python, "-m", "pytest", *options, *arguments]
        status = subprocess.run(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream).returncode
    lines = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
    said = [line for line in lines if re.search(r" in [\d.]+s\b.*=$", line)]  # libraries warn behind it, at exit
    found = re.findall(r"\d+ (?:passed|failed|skipped|errors?)\b", said[-1]) if said else []
    summary = ", ".join(found) if found and status in (0, 1) else f"broken ({status}): {lines[-1][:120]}"
    print(f"{row.name:36} {name:16} {summary}   ({time.monotonic() - began:.0f} s, {log})", flush=True)
    return summary


def write_page(results: dict[str, Entry]) -> None:
    """Put the table of all results between the marks of docs/espnet_lines.md."""
    names, packages = list(CHECKS), ("torch", "espnet", "transformers", "numpy", "numba")
    head = ["Python", *packages, *names, "date", "commit", "environment"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in ROWS:
        entry = results.get(row.name, {"python": row.python, "versions": {}, "checks": {}})
        checks = entry["checks"]
        cells = [entry["python"], *(entry["versions"].get(name, getattr(row, name, "")) for name in packages)]
        missing = checks.get("installation", {"result": "not run"})
        cells += [checks.get(name, missing)["result"] for name in names]
        cells += [", ".join(sorted({check[key] for check in checks.values()})) for key in ("date", "commit")]
        lines.append("| " + " | ".join([*cells, entry.get("note", "")]) + " |")
    before, _, rest = PAGE.read_text(encoding="utf8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + "\n".join([BEGIN, *lines, END]) + after, encoding="utf8")


def floors() -> Row:
    """A set-up of exactly the lower bounds that setup.cfg declares, on the oldest Python; without ESPnet."""
    import configparser

    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    extras = declared["options.extras_require"]
    lines = [declared["options"]["install_requires"], *(extras[name] for name in ("fast", "pot", "teacher", "recipe"))]
    words = [word for text in lines for word in text.split() if ">=" in word]
    bounds = dict(word.split(">=") for word in words)
    torch, transformers = bounds.pop("torch"), bounds.pop("transformers")
    oldest = declared["options"]["python_requires"].removeprefix(">=")
    return Row(oldest, torch, "", transformers, tuple(f"{name}=={version}" for name, version in bounds.items()))


def main() -> None:
    """Run the rows that have no result yet, or those that are named."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--row", action="append", choices=[row.name for row in ROWS], help="only this one")
    parser.add_argument("--check", action="append", choices=[*CHECKS], help="only this one; the environment stays")
    parser.add_argument("--work", type=Path, default=ROOT / ".matrix", metavar="DIR", help="for environments and logs")
    parser.add_argument("--python", type=Path, metavar="FILE", help="of an environment that is there; needs one --row")
    parser.add_argument("--note", metavar="TEXT", help="about the environment, for the table")
    parser.add_argument("--table", action="store_true", help="only write the table of the results that are there")
    parser.add_argument("--floors", action="store_true", help="only test setup.cfg's lower bounds; writes no table")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.floors:
        checks = try_row(floors(), args.work, wanted(floors()), python=args.python)["checks"]
        sys.exit(any(bad in found["result"] for found in checks.values() for bad in ("failed", "broken", "error")))
    if args.python and len(args.row or []) != 1:
        parser.error("--python needs one --row")
    rows = [row for row in ROWS if row.name in (args.row or [row.name for row in ROWS])]
    for row in [] if args.table else rows:
        before = read_results().get(row.name)
        checks = [name for name in wanted(row) if name in (args.check or CHECKS)]
        if before and not set(checks) - set(before["checks"]):
            print(f"{row.name}: has its results; to run it again, delete them from {RESULTS}")
            continue

        def save(entry: Entry, name: str = row.name) -> None:
            entry |= {"note": args.note} if args.note else {}
            # read again: another row, or another check of this one, may have ended meanwhile
            results = read_results()
            kept = results.get(name, {"checks": {}})["checks"]
            entry["checks"] = {
                **{key: found for key, found in kept.items() if key != "installation"},
                **entry["checks"],
            }
            RESULTS.write_text(json.dumps({**results, name: entry}, indent=1) + "\n")
            write_page(read_results())

        save(try_row(row, args.work, checks, before, save, args.python))
        if not args.check and not args.python:
            shutil.rmtree(args.work / "row", ignore_errors=True)
    write_page(read_results())


def read_results() -> dict[str, Entry]:
    """The results so far, by the rows' names."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


if __name__ == "__main__":
    main()

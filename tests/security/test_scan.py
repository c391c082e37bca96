"""What could run code that a file brings along is used nowhere unseen: a new place fails here until it is looked at.

ruff's security rules, which `make lint` applies, know eval, exec, shells and YAML's loaders; the rest is here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("espnet_gmot", "benchmarks", "egs2", "examples", "docs")
# where kaldiio reads: pickles and commands are refused before (kaldi/ark.py), or the archive is the benchmark's own
KALDIIO = {"espnet_gmot/kaldi/ark.py", "benchmarks/teacher_precision.py", "benchmarks/teacher_archives.py"}
SHELLS = {"espnet_gmot/kaldi/wav.py"}  # a command of wav.scp
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
# for the names of their exceptions alone
IMPORTS = {("espnet_gmot/hosts/checkpoints.py", "pickle")}


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, str], ast.Call]]:
    """Every call's name as it is written, its keywords, and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg or "**": ast.unparse(k.value) for k in node.keywords}, node


def faults(path: str, source: str) -> Iterator[str]:
    """What is wrong with a file, as `PATH:LINE: WHAT`."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.partition(".")[0] in MODULES and (path, name) not in IMPORTS:
                yield f"{path}:{node.lineno}: imports {name}"
    for name, keywords, node in calls(tree):
        where, last = f"{path}:{node.lineno}", name.rpartition(".")[2]
        if name in ("torch.load", "torch.jit.load", "torch.hub.load") and keywords.get("weights_only") != "True":
            passed = ast.unparse(node.keywords[-1].value) if "**" in keywords else ""
            # a wrapper that only hands an open file on reads it as its caller says
            if not (path == "espnet_gmot/hosts/checkpoints.py" and ("trusted" in passed or "kwargs" in passed)):
                yield f"{where}: {name} without weights_only=True"
        if name in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False":
            yield f"{where}: {name} without allow_pickle=False"
        if last in ("load_mat", "load_scp", "load_ark", "load_scp_sequential") and path not in KALDIIO:
            yield f"{where}: {name}: kaldiio runs commands and pickles: kaldi.ark.read_matrix"
        if keywords.get("shell", "False") != "False" and path not in SHELLS:
            yield f"{where}: {name} with a shell"
        if keywords.get("trust_remote_code", "False") != "False":
            yield f"{where}: {name} runs code of a model"
        if last == "from_pretrained" and "auto_class" in name and keywords.get("trust_remote_code") != "False":
            yield f"{where}: {name} without trust_remote_code=False"
        if last == "extractall" or name in ("eval", "os.system", "os.popen"):
            yield f"{where}: {name}"


def test_nothing_in_the_tree_runs_what_a_file_holds() -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 100
    assert [fault for p in paths for fault in faults(str(p.relative_to(ROOT)), p.read_text(encoding="utf8"))] == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "import pickle",
        "from joblib import load",
        "kaldiio.load_mat(x)",
        "subprocess.run(x, shell=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "eval(x)",
        "archive.extractall(x)",
    ],
)
def test_the_scan_sees(line: str) -> None:
    assert len(list(faults("espnet_gmot/new.py", line))) == 1

"""Whether everything is installed, for the Python that the recipe itself starts as well."""

import json
import shutil
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from espnet_gmot import doctor
from espnet_gmot.doctor.finding import PIP, REQUIRED, Finding
from espnet_gmot.doctor.material import surrounding_checkout
from espnet_gmot.doctor.software import HOME

_ASK = """
import json, sys
from importlib.util import find_spec
print(json.dumps([sys.executable, *(find_spec(name) is not None for name in ("espnet_gmot", "espnet2"))]))
"""


def findings(teacher: str) -> Iterator[Finding]:
    """What doctor finds for this recipe folder, and what its path.sh leads to.

    Args:
        teacher: the language model.
    """
    root = surrounding_checkout()
    yield from doctor.examine(Namespace(full=False, teacher=teacher, espnet_root=root, aishell=None, workdir=Path()))
    if Path("path.sh").is_file() and shutil.which("bash"):
        yield recipe_python()


def recipe_python() -> Finding:
    """The Python that asr.sh calls, which path.sh chooses: it has to know ESPnet and the plugin too."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", '. ./path.sh 1>&2; exec python3 -c "$0"', _ASK],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        return Finding(
            "path.sh", f"fails: {said[-1]}", REQUIRED, "bash -c '. ./path.sh'    # as asr.sh does; mend that"
        )
    python, plugin, espnet = json.loads(done.stdout.splitlines()[-1])
    if plugin and espnet:
        return Finding("path.sh", f"leads to {python}, which has ESPnet and the plugin")
    lacking = " and ".join(name for name, there in (("espnet_gmot", plugin), ("espnet", espnet)) if not there)
    what = str(HOME) if (HOME / "setup.cfg").is_file() else "espnet_gmot"
    mend = f"{python} {PIP.partition(' ')[2]} -e '{what}[fast,teacher]'"
    return Finding("path.sh", f"leads to {python}, which has no {lacking}", REQUIRED, mend)

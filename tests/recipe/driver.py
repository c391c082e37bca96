"""Runs several recipes in one process, because importing ESPnet takes 12 s: ``driver.py CASES.json OUTCOMES.json``.

A case is ``{"name": …, "argv": […]}``; its outcome ``{"error": message or null, "output": what was printed}``. The
process is one of its own because the recipe forks, which torch forbids after a backward pass in the same process.
"""

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.recipe.cli import run


def main(cases: str, outcomes: str) -> None:
    """Run the cases in order."""
    found = {}
    for case in json.loads(Path(cases).read_text()):
        output, error = io.StringIO(), None
        with contextlib.redirect_stdout(output):
            try:
                run(case["argv"])
            except UserError as problem:
                error = str(problem)
            except BaseException:
                error = "UNEXPECTED " + traceback.format_exc()
        found[case["name"]] = {"error": error, "output": output.getvalue()}
        Path(outcomes).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

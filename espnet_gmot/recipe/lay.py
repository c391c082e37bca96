"""``recipe --init``: the recipe's folder for people who installed the package and have no clone."""

import shutil
from pathlib import Path

from espnet_gmot.errors import UserError

TEMPLATE = Path(__file__).resolve().parent / "template"
"""asr1/ and conf/: links into a clone's egs2/ and conf/, files in an installed package."""


def lay(folder: Path) -> list[str]:
    """Write run.sh and what it sources, local/ and conf/ into a folder, which may exist but hold none of them.

    Args:
        folder: the new recipe, such as ``aishell_gmot/asr1``.

    Returns:
        The names written.

    Raises:
        UserError: one of the names is there already; nothing is written then.
    """
    parts = {path.name: path for path in sorted((TEMPLATE / "asr1").iterdir()) if path.name != "conf"}
    parts = {name: path for name, path in parts.items() if path.suffix == ".sh" or name == "local"}
    parts["conf"] = TEMPLATE / "conf"
    if there := [name for name in parts if (folder / name).exists()]:
        raise UserError(f"--init {folder}: holds {', '.join(there)} already: give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in parts.items():
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    for script in [*folder.glob("*.sh"), *folder.glob("local/*.sh")]:
        script.chmod(0o755)  # a wheel keeps no modes
    return list(parts)

"""asr.sh's stage 14 on a gmot experiment: what goes into the zip is a stock model.

People who get a zip have ESPnet, not the plugin. So configuration and parameters are exported on the way in; all else
that asr.sh packs (statistics, pieces, results, language model) goes in as it is, under the same names.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing, staging, working_in, write_text
from espnet_gmot.hosts import portable
from espnet_gmot.hosts.export import read_config, read_state, same_tensors, strip
from espnet_gmot.hosts.register import register


def pack(words: list[str]) -> bool:
    """Pack a gmot experiment as stock, where the words of espnet2.bin.pack ask for one.

    Args:
        words: ``asr --asr_train_config exp/X/config.yaml --asr_model_file exp/X/Y.pth --option … --outpath Z``.

    Returns:
        Whether it was one; nothing is done otherwise, nor where stock ESPnet has no such model, of which stderr hears.

    Raises:
        UserError: the parameters aren't those of the configuration.
    """
    from espnet2.bin import pack as packer

    if words[:1] != ["asr"] or {"-h", "--help"} & {*words}:
        return False
    args = packer.get_parser().parse_args(words)
    config_file, model_file = Path(args.asr_train_config or ""), Path(args.asr_model_file or "")
    if not (config_file.is_file() and model_file.is_file()):
        return False
    config = yaml.safe_load(config_file.read_text(encoding="utf8"))
    if not isinstance(config, dict) or config.get("model") != "gmot":
        return False
    register()
    import espnet2.tasks.asr as task

    config = read_config(config_file.parent)
    try:
        portable.refuse(config, task.ASRTask, config_file.parent)
    except UserError as error:
        print(f"espnet_gmot: warning: whoever unpacks this zip needs the plugin: {error}", file=sys.stderr)
        return False
    with staging(config_file.parent / "pack") as folder:
        stage = folder.absolute()
        stock_config, stock_model = _place(config_file, stage), _place(model_file, stage)
        new = ["asr", "--outpath", str(Path(args.outpath).absolute())]
        new += ["--asr_train_config", str(stock_config), "--asr_model_file", str(stock_model)]
        moved = {}
        for option, paths in (
            ("--lm_train_config", [args.lm_train_config]),
            ("--lm_file", [args.lm_file]),
            ("--option", args.option),
        ):
            for path in filter(None, paths):
                place = _lay(Path(path), stage)
                moved[path] = str(place.relative_to(stage))
                new += [] if place in (stock_config, stock_model) else [option, str(place)]
        plain = portable.stock_config(config, task.ASRTask)
        dropped, merged = _write_stock(plain, config, model_file, (stock_config, stock_model))
        _write_config(stock_config, portable.moved(plain, moved))
        with working_in(stage):
            packer.main(new)
    print(
        f"espnet_gmot: packed as model: espnet, {dropped} tensors of gmot left behind"
        + (", the residual path merged into the CTC head" if merged else "")
    )
    return True


def _write_stock(
    plain: dict[str, Any], config: dict[str, Any], model_file: Path, stock: tuple[Path, Path]
) -> tuple[int, bool]:
    """Write the stock configuration and parameters, which must fit each other; whatever lies there is replaced.

    A file that lies there may be a link to one of the user's: it is never written to.

    Returns:
        How many tensors were dropped, and whether the residual path was merged.
    """
    import espnet2.tasks.asr as task

    stock_config, stock_model = stock
    _write_config(stock_config, plain)
    state = read_state(model_file)
    resolved = GMOTConfig.from_dict(config["model_conf"].get("gmot_conf"))
    dropped, merged = strip(state, resolved.residual and resolved.transfers, model_file)
    model, _ = task.ASRTask.build_model_from_file(stock_config)
    same_tensors(state, model.state_dict(), model_file)
    with replacing(stock_model, "wb") as handle:
        torch.save(state, handle)
    return dropped, merged


def _write_config(path: Path, config: dict[str, Any]) -> None:
    write_text(path, yaml.safe_dump(config, indent=4, sort_keys=False, allow_unicode=True))


def _place(path: Path, stage: Path) -> Path:
    """Where a file goes below ``stage``: as seen from the working directory, or by its whole path if it lies elsewhere.

    By its name alone, a language model's config.yaml would share a place with the recogniser's.
    """
    way = Path(os.path.relpath(path))
    return stage / (Path("outside", *Path(os.path.abspath(path)).parts[1:]) if way.parts[0] == ".." else way)


def _lay(path: Path, stage: Path) -> Path:
    """Link or copy a file or folder to its place below ``stage``, and say where that is.

    Raises:
        UserError: it isn't there.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder: run the stage before, or give --skip_packing true")
    place = _place(path, stage)
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, place, dirs_exist_ok=True)
    elif not place.exists():
        try:
            os.link(path.resolve(), place)
        except OSError:
            shutil.copy2(path, place)  # it lies on another file system
    return place

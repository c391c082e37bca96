"""What run.sh asks of a teacher before the first stage: whether it is one, and who reads its features."""

from pathlib import Path

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.files import read_mapping
from espnet_gmot.hosts.guard import OURS, options_of
from espnet_gmot.hub import TEACHER, fault, is_folder, load_config
from espnet_gmot.words import split_words


def transfer_of(config: str, asr_args: str) -> GMOTConfig | None:
    """The transfer that a configuration and asr_train's further options describe; None for a stock model.

    Args:
        config: the configuration's file; empty for none.
        asr_args: as run.sh's ``--asr_args``.

    Raises:
        UserError: the file is missing or no configuration, or an option of gmot_conf is wrong.
    """
    if config:
        read_mapping(Path(config))
    words = [*(["--config", config] if config else []), *split_words("--asr_args", asr_args)]
    args = options_of(words)
    if args.model != OURS:
        return None
    try:
        return GMOTConfig.from_dict(args.model_conf.get("gmot_conf"))
    except UserError as error:
        where = f"--asr_args {asr_args!r}" if "gmot_conf" in asr_args else config
        raise UserError(f"{where}: {error}") from error


def layers_of(config: str, asr_args: str, teacher: str) -> list[int]:
    """The teacher's layers that a configuration asks for.

    Args:
        config: the configuration's file.
        asr_args: as run.sh's ``--asr_args``.
        teacher: folder or hub name; it must be there.

    Raises:
        UserError: it is of a stock model, which reads no features of a teacher, is wrong, or the teacher isn't there.
    """
    transfer = transfer_of(config, asr_args)
    if transfer is None:
        path = Path(config)
        twins = [path.with_name(f"{stem}_gmot.yaml") for stem in (path.stem, path.stem.removesuffix("_ctc"))]
        twin = next((twin for twin in twins if twin.is_file()), None)
        fix = f"give {twin}" if twin else f"make one of it: python3 -m espnet_gmot adopt {config} --teacher …"
        raise UserError(f"--asr_config {config}: a stock model, which takes no --teacher; {fix}")
    check_teacher(teacher)
    return transfer.layers


def check_teacher(teacher: str) -> None:
    """Check that a teacher is there, without reading its weights.

    Args:
        teacher: folder or hub name; empty: nothing is checked.

    Raises:
        UserError: there is none of that name, or the folder isn't whole.
    """
    if not teacher:
        return
    if not is_folder(teacher):
        load_config(teacher)
    elif found := fault(Path(teacher).expanduser()):
        raise UserError(f"{TEACHER.name} {teacher!r}: {'; '.join(found)}")

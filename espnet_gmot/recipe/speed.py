"""Stage 2, speed perturbation: the same data directories as Kaldi's script, and the audio without sox."""

import re
import shlex
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.tables import combine_data_dirs, read_data_dir, write_data_dir


def perturb_data_dir(source: str | Path, target: str | Path, factor: str) -> None:
    """Write ``source`` again at another speed: keys ``sp0.9-UTT``, speakers ``sp0.9-SPK``, wav.scp with sox pipes.

    The pipes are what asr.sh writes, so that either engine can format the audio; this one never runs them.

    Args:
        source: data directory with wav.scp, text and utt2spk.
        target: data directory to write.
        factor: speed, written as the user wrote it.
    """
    tables = read_data_dir(source)
    prefix = f"sp{factor}-"
    perturbed = {
        "utt2spk": {prefix + key: prefix + speaker for key, speaker in tables["utt2spk"].items()},
        "text": {prefix + key: text for key, text in tables["text"].items()},
        "utt2uniq": {prefix + key: key for key in tables["utt2spk"]},
        "wav.scp": {prefix + key: _pipe(entry, factor) for key, entry in tables["wav.scp"].items()},
    }
    write_data_dir(target, perturbed, common=False)


def _pipe(entry: str, factor: str) -> str:
    if entry.endswith("|"):
        return f"{entry[:-1].rstrip()} | sox -t wav - -t wav - speed {factor} |"
    if re.search(r":[0-9]+$", entry):
        return f"wav-copy {_word(entry)} - | sox -t wav - -t wav - speed {factor} |"
    return f"sox {_word(entry)} -t wav - speed {factor} |"


def _word(entry: str) -> str:
    """A path as one word of a shell's line: as it is, or quoted where it holds spaces or a shell's own signs."""
    return entry if re.fullmatch(r"[\w@%+=:,./-]+", entry) else shlex.quote(entry)


def parse_factors(text: str) -> list[str]:
    """Split ``--speed_perturb_factors``.

    Raises:
        UserError: something that is not a positive number.
    """
    factors = text.split()
    for factor in factors:
        try:
            good = 0.1 <= float(factor) <= 10
        except ValueError:
            good = False
        if not good:
            raise UserError(f"--speed_perturb_factors {text!r}: {factor!r} is not a speed between 0.1 and 10")
    return factors


def perturb_training_set(train_set: str, factors: str) -> None:
    """Make data/SET_sp out of data/SET: all factors side by side, the original where the factor is 1."""
    parts = []
    for factor in parse_factors(factors):
        if float(factor) == 1.0:
            parts.append(Path("data") / train_set)
        else:
            parts.append(Path("data") / f"{train_set}_sp{factor}")
            perturb_data_dir(Path("data") / train_set, parts[-1], factor)
    combine_data_dirs(Path("data") / f"{train_set}_sp", parts)

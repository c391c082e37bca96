"""Recordings that two sets share: what is trained on must not be tested on."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_gmot.errors import UserError
from espnet_gmot.files import sha256
from espnet_gmot.kaldi.wav import path_of

_PROBE = 4096  # bytes from the middle, compared before whole files are


def shared_recordings(first: Mapping[str, str], second: Mapping[str, str]) -> list[tuple[str, str]]:
    """Utterances of two sets with the same recording: the same source, file or file content.

    Files are read only where their sizes agree, and whole only where a block from their middle agrees too.

    Args:
        first: wav.scp of one set: source by utterance; absent files are left to who reads them.
        second: wav.scp of the other.

    Returns:
        Pairs of utterances, of the first set and of the second.
    """
    by_source = {_identity(source): key for key, source in first.items()}
    shared = [(by_source[there], key) for key, source in second.items() if (there := _identity(source)) in by_source]
    known = {key for _, key in shared}
    sizes = _by_size(second)
    ours = {size: keys for size, keys in _by_size(first).items() if size in sizes}
    for size, keys in ours.items():
        probes: dict[bytes, Any] = defaultdict(list)
        for key, path in keys:
            probes[_probe(path, size)].append((key, path))
        for key, path in sizes[size]:
            if key in known:
                continue
            probe = _probe(path, size)
            if isinstance(alike := probes.get(probe, {}), list):  # each is read once, however many there are
                alike = probes[probe] = {sha256(there): other for other, there in reversed(alike)}
            if alike and (same := alike.get(sha256(path))) is not None:
                shared.append((same, key))
    return shared


def refuse_leaks(sets: Mapping[str, Mapping[str, str]], train_set: str) -> None:
    """Check a training set against the other sets.

    Args:
        sets: wav.scp by the set's name.
        train_set: which of them is trained on.

    Raises:
        UserError: another set holds one of its recordings; names both utterances and how many there are.
    """
    for name, sources in sets.items():
        if name == train_set or train_set not in sets:
            continue
        if shared := shared_recordings(sets[train_set], sources):
            ours, theirs = shared[0]
            raise UserError(
                f"{name}: {len(shared)} of {len(sources)} recordings are also in {train_set}, the first is {theirs} "
                f"({ours} there); remove them from one of the two: what is trained on can't be tested on"
            )


def _identity(source: str) -> str:
    path = path_of(source)
    return str(Path(path).resolve()) if path else source


def _by_size(sources: Mapping[str, str]) -> dict[int, list[tuple[str, Path]]]:
    """Utterance and path of every plain file by its size; speed-perturbed copies are one file."""
    keys = {path: key for key, source in sources.items() if (path := path_of(source))}
    sizes = defaultdict(list)
    for path, key in keys.items():
        if (place := Path(path)).is_file() and (size := place.stat().st_size):
            sizes[size].append((key, place))
    return sizes


def _probe(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(size // 2)
        return stream.read(_PROBE)

"""Utterances that can't be used: counted, listed with the reason, skipped only up to the limit that the user sets."""

from collections.abc import Mapping
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text

LIST = "bad_utterances"
"""File of a data directory: ``utterance reason`` lines."""


def settle_bad(
    folder: str | Path,
    bad: Mapping[str, str],
    total: int,
    max_bad: int,
    *,
    whole: bool = False,
    more: Mapping[str, str] | None = None,
    skip: str = "--max_bad",
) -> None:
    """List bad utterances in ``folder/bad_utterances`` and say so, or refuse to go on without them.

    Args:
        folder: the set's data directory; an earlier list goes if nothing is bad any more.
        bad: reason by utterance.
        total: how many utterances there are with the bad ones.
        max_bad: how many may be skipped.
        whole: whether none may be, because error rates are counted on this set.
        more: utterances that the user's other options leave out; they are listed, but not counted.
        skip: what sets the limit, up to the number.

    Raises:
        UserError: there are more than ``max_bad``, or any and the set must be whole, or no good one; names the list,
            the first and the option.
    """
    path = Path(folder) / LIST
    listed = {**(more or {}), **bad}
    if not listed:
        path.unlink(missing_ok=True)
        return
    write_text(path, "".join(f"{key} {' '.join(listed[key].split())}\n" for key in sorted(listed)))
    if not bad:
        return
    first = min(bad)
    message = f"{path}: {len(bad)} of {total} utterances can't be used, the first is {first}: {bad[first]}"
    if whole:
        raise UserError(f"{message}; a test set must be whole, or its error rate would be another set's: mend them")
    if len(bad) == total:
        raise UserError(f"{message}; there is no other")
    if len(bad) > max_bad:
        raise UserError(f"{message}; mend them, or skip that many by {skip} {len(bad)}")
    print(f"{message}; skipped, as --max_bad {max_bad} allows", flush=True)

"""``check-data``: whether data directories are fit for ESPnet's own readers, which neither clean nor look.

``recipe`` cleans and checks whatever it reads. asr.sh of a checkout takes data/ as it is: there a byte order mark
becomes part of an id, an ideographic space a token, and half a recording is trained on.
"""

import argparse
import io
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing, sweep, writing
from espnet_gmot.kaldi.ark import read_matrix
from espnet_gmot.kaldi.bad import LIST, settle_bad
from espnet_gmot.kaldi.leaks import refuse_leaks
from espnet_gmot.kaldi.parallel import cores, each
from espnet_gmot.kaldi.tables import UTTERANCE_TABLES, clean_text, read_table, spk2utt, write_table
from espnet_gmot.kaldi.wav import measure_seconds

_BEYOND = 0.5  # seconds that a segment may go on after its recording: who cuts stops there, and rounding makes it so


@dataclass
class DataDir:
    """A data directory as it should be read.

    Attributes:
        folder: where.
        tables: values by utterance of each file; where there are ``segments``, wav.scp's by recording.
        faults: what ESPnet would misread or refuse, though the tables hold what is needed.
        bad: why utterances can't be used.
    """

    folder: Path
    tables: dict[str, dict[str, str]]
    faults: list[str]
    bad: dict[str, str]

    @property
    def by_utterance(self) -> dict[str, dict[str, str]]:
        """The tables whose keys are utterances."""
        cut = "segments" in self.tables
        return {name: table for name, table in self.tables.items() if not (cut and name == "wav.scp")}

    @property
    def utterances(self) -> set[str]:
        """All of them, with the bad ones."""
        return set().union(*self.by_utterance.values())

    def sources(self) -> dict[str, str]:
        """What is heard in each utterance; of a segment the recording and the times."""
        wavs = self.tables.get("wav.scp", {})
        cuts = self.tables.get("segments")
        if cuts is None:
            return wavs
        return {key: f"{wavs.get(value.split()[0], '')} {value}" for key, value in cuts.items() if value}

    def tidy(self) -> None:
        """Write the tables anew, sorted, without the bad utterances; what was there stays as ``NAME.orig``."""
        sweep(self.folder)
        for name, table in self.tables.items():
            path = self.folder / name
            _keep(path)
            drop = self.bad if name in self.by_utterance else ()
            write_table(path, {key: value for key, value in table.items() if key not in drop})
        write_table(self.folder / "spk2utt", spk2utt(read_table(self.folder / "utt2spk")))


def _keep(path: Path) -> None:
    """Give a table's content a second name, another one for each content."""
    content, number = path.read_bytes(), 1
    while (kept := path.with_name(f"{path.name}.orig{number if number > 1 else ''}")).exists():
        if kept.read_bytes() == content:
            return
        number += 1
    with replacing(kept, "wb") as copy:
        copy.write(content)


def misread(path: Path, table: Mapping[str, str]) -> list[str]:
    """Ids whose lines ESPnet's reader takes otherwise than they should be read, and ``line N`` for lines it fails at.

    Args:
        path: the file.
        table: what it should be read as.
    """
    raw: dict[str, str] = {}
    odd = []
    for number, line in enumerate(io.StringIO(path.read_bytes().decode("utf-8", errors="replace"), newline=None), 1):
        words = line.rstrip().split(maxsplit=1)  # as espnet2.fileio.read_text does
        if words:
            raw[words[0]] = words[1] if len(words) > 1 else ""
        else:
            odd.append(f"line {number}")
    return [*(key for key, value in table.items() if raw.get(key) != value), *(raw.keys() - table.keys()), *odd]


def _read(path: Path) -> dict[str, str]:
    table = read_table(path)
    return {key: clean_text(text) for key, text in table.items()} if path.name == "text" else table


def look(folder: Path) -> DataDir:
    """Read a data directory, and what it names.

    Raises:
        UserError: a table can't be read, or utt2spk, text, or wav.scp and feats.scp are absent.
    """
    names = [name for name in (*UTTERANCE_TABLES, "segments") if (folder / name).is_file()]
    for needed in (("utt2spk",), ("text",), ("wav.scp", "feats.scp")):
        if not any(name in names for name in needed):
            raise UserError(f"{folder}/{needed[0]}: no such file; give a data directory of Kaldi's form")
    tables = {name: _read(folder / name) for name in names}
    found = DataDir(folder, tables, list(_faults(folder, tables)), {})
    for key in found.utterances:
        if lacking := [name for name, table in found.by_utterance.items() if key not in table]:
            found.bad[key] = f"has no line in {', '.join(lacking)}"
        elif len(tables["utt2spk"][key].split()) != 1:
            found.bad[key] = "has no one speaker in utt2spk; where none is known, give the utterance's id"
    if "wav.scp" not in tables:
        found.bad |= each(_features, tables["feats.scp"], cores(), f"features {folder.name}")[1] | found.bad
        return found
    lengths, spoilt = each(measure_seconds, tables["wav.scp"], cores(), f"recordings {folder.name}")
    if "segments" in tables:
        spoilt = dict(_bad_cuts(tables["segments"], lengths, spoilt))
    found.bad |= spoilt | found.bad
    return found


def _faults(folder: Path, tables: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for name, table in tables.items():
        keys = list(table)
        if odd := misread(folder / name, table):
            yield (
                f"{folder / name}: ESPnet misreads {len(odd)} of {len(keys)} lines, the first is {odd[0]!r}: byte "
                "order marks, invisible characters, unusual spaces or empty lines"
            )
        elif late := next((key for before, key in pairwise(keys) if key < before), None):
            yield f"{folder / name}: not sorted as Kaldi wants it, the first late line is {late}'s"
    path = folder / "spk2utt"
    if not path.is_file() or read_table(path) != spk2utt(tables["utt2spk"]):
        yield f"{path}: {'other than utt2spk says' if path.is_file() else 'no such file'}"


def _features(entry: str) -> None:
    read_matrix(entry)


def _bad_cuts(
    segments: Mapping[str, str], lengths: Mapping[str, float], spoilt: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for key, cut in segments.items():
        recording, *times = cut.split() or [""]
        try:
            start, end = map(float, times)
        except ValueError:
            yield key, f"segments has {cut!r}, not `recording start end`"
            continue
        if recording in spoilt:
            yield key, spoilt[recording]
        elif recording not in lengths:
            yield key, f"is cut out of {recording}, which wav.scp hasn't"
        elif not 0 <= start < (end if end != -1 else lengths[recording]) <= lengths[recording] + _BEYOND:
            yield key, f"is cut from {start:g} to {end:g} s out of {recording}, which has {lengths[recording]:.2f} s"


def check(folders: Sequence[Path], tests: Sequence[Path], max_bad: int, tidy: bool) -> None:
    """Check data directories; see the module.

    Args:
        folders: sets to train on and to validate on, the training set first.
        tests: sets that are scored.
        max_bad: so many utterances of each may be left out, but none of a test set.
        tidy: write the tables anew.

    Raises:
        UserError: something isn't fit, and stays as it is; says what would mend it.
    """
    seen = {folder: look(folder) for folder in dict.fromkeys((*folders, *tests))}
    for folder, found in seen.items():
        command = f"python3 -m espnet_gmot check-data --tidy {shlex.quote(str(folder))}"
        if found.bad and len(found.bad) <= max_bad and not tidy:
            raise UserError(f"{folder}: --max_bad leaves utterances out of tables that --tidy writes: give both")
        if found.bad:
            gone = _listed(folder / LIST, found.utterances)
            settle_bad(
                folder,
                found.bad,
                len(found.utterances),
                max_bad,
                whole=folder in tests,
                more=gone,
                skip=f"{command} --max_bad",
            )
        if found.faults and not tidy:
            more = f" (and {len(found.faults) - 1} more such)" if len(found.faults) > 1 else ""
            raise UserError(f"{found.faults[0]}{more}; `{command}` writes the tables anew, and keeps NAME.orig")
    if folders:
        refuse_leaks({str(folder): found.sources() for folder, found in seen.items()}, str(folders[0]))
    for folder, found in seen.items():
        if found.faults or found.bad:
            found.tidy()
        left = len(found.utterances) - len(found.bad)
        print(f"{folder}: {left} utterances, fit for ESPnet{', mended' * bool(found.faults)}", flush=True)


def _listed(path: Path, there: set[str]) -> dict[str, str]:
    """Utterances that were left out before, and why."""
    return {key: why for key, why in (read_table(path) if path.is_file() else {}).items() if key not in there}


def _limit(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number")
    return int(text)


def get_parser() -> argparse.ArgumentParser:
    """The command line of check-data."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot check-data",
        description="Check data directories before an asr.sh reads them, which neither cleans nor checks: tables, ids, "
        "transcripts, recordings (a wav by its header, anything else whole: commands in wav.scp are run, as stage 3 "
        "runs them), and whether another set holds recordings of the training set. run.sh does so before stages 2 and "
        "3 with --espnet_root; without one, `recipe` does all this by itself.",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR", help="data/train data/dev: the training set first"
    )
    parser.add_argument("--tests", nargs="+", type=Path, default=[], metavar="DIR", help="sets that are scored")
    parser.add_argument("--tidy", action="store_true", help="write tables anew that ESPnet misreads; NAME.orig is kept")
    parser.add_argument(
        "--max_bad",
        type=_limit,
        default=0,
        help="with --tidy: leave out so many bad utterances of each set, but none of --tests [0]",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python3 -m espnet_gmot check-data`."""
    args = get_parser().parse_args(sys.argv[1:] if argv is None else argv)
    if not args.folders and not args.tests:
        raise UserError("which data directories? check-data data/train data/dev --tests data/test")
    with writing():
        check(args.folders, args.tests, args.max_bad, args.tidy)
    return 0

"""``check-data``: whether data directories are fit for ESPnet's own readers, which neither clean nor look.

``recipe`` cleans and checks whatever it reads. asr.sh of a checkout takes data/ as it is: there a byte order mark
becomes part of an id, an ideographic space a token, and half a recording is trained on.
"""

import argparse
import io
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import replacing, writing
from espnet_gmot.kaldi.bad import settle_bad
from espnet_gmot.kaldi.leaks import refuse_leaks
from espnet_gmot.kaldi.parallel import cores, each
from espnet_gmot.kaldi.tables import UTTERANCE_TABLES, clean_text, read_table, spk2utt, write_table
from espnet_gmot.kaldi.wav import count_samples


@dataclass
class DataDir:
    """A data directory as it should be read.

    Attributes:
        folder: where.
        tables: values by utterance (or by recording), of each file.
        misread: ids whose lines ESPnet reads otherwise, of each file that has any.
        bad: why utterances can't be used.
    """

    folder: Path
    tables: dict[str, dict[str, str]]
    misread: dict[str, list[str]]
    bad: dict[str, str]

    @property
    def total(self) -> int:
        """Number of utterances, with the bad ones."""
        return len(set().union(*(table for name, table in self.tables.items() if not self.by_recording(name))))

    def by_recording(self, name: str) -> bool:
        """Whether a table's keys are recordings, out of which ``segments`` cuts utterances."""
        return "segments" in self.tables and name == "wav.scp"

    def tidy(self) -> None:
        """Write the tables anew, without the bad utterances; what was there stays as ``NAME.orig``."""
        for name, table in self.tables.items():
            path = self.folder / name
            if not (kept := self.folder / f"{name}.orig").exists():
                with replacing(kept, "wb") as copy:
                    copy.write(path.read_bytes())
            drop = () if self.by_recording(name) else self.bad
            write_table(path, {key: value for key, value in table.items() if key not in drop})
        write_table(self.folder / "spk2utt", spk2utt(read_table(self.folder / "utt2spk")))


def misread(path: Path) -> list[str]:
    """Ids whose lines ESPnet's reader takes otherwise than they should be read, and ``line N`` for lines it fails at.

    Raises:
        UserError: as :func:`espnet_gmot.kaldi.tables.read_table`.
    """
    raw: dict[str, str] = {}
    odd = []
    for number, line in enumerate(io.StringIO(path.read_bytes().decode("utf-8", errors="replace"), newline=None), 1):
        words = line.rstrip().split(maxsplit=1)  # as espnet2.fileio.read_text does
        if words:
            raw[words[0]] = words[1] if len(words) > 1 else ""
        else:
            odd.append(f"line {number}")
    table = _read(path)
    return [*(key for key, value in table.items() if raw.get(key) != value), *(raw.keys() - table.keys()), *odd]


def _read(path: Path) -> dict[str, str]:
    table = read_table(path)
    return {key: clean_text(text) for key, text in table.items()} if path.name == "text" else table


def look(folder: Path) -> DataDir:
    """Read a data directory and the headers of its recordings.

    Raises:
        UserError: a table can't be read, or utt2spk, text, or wav.scp and feats.scp are absent.
    """
    names = [name for name in (*UTTERANCE_TABLES, "segments") if (folder / name).is_file()]
    for needed in (("utt2spk",), ("text",), ("wav.scp", "feats.scp")):
        if not any(name in names for name in needed):
            raise UserError(f"{folder}/{needed[0]}: no such file; give a data directory of Kaldi's form")
    tables = {name: _read(folder / name) for name in names}
    found = DataDir(folder, tables, {name: odd for name in names if (odd := misread(folder / name))}, {})
    for key in set().union(*(table for name, table in tables.items() if not found.by_recording(name))):
        lacking = [name for name, table in tables.items() if not found.by_recording(name) and key not in table]
        if lacking:
            found.bad[key] = f"has no line in {', '.join(lacking)}"
    if "wav.scp" in tables:
        _, spoilt = each(count_samples, tables["wav.scp"], cores(), f"headers {folder.name}")
        for key, segment in tables.get("segments", {key: key for key in spoilt}).items():
            recording = segment.split()[0] if segment else ""
            if recording in spoilt:
                found.bad.setdefault(key, spoilt[recording])
            elif recording not in tables["wav.scp"]:
                found.bad.setdefault(key, f"is cut out of {recording or 'nothing'}, which wav.scp hasn't")
    return found


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
    seen = {folder: look(folder) for folder in (*folders, *tests)}
    for folder, found in seen.items():
        command = f"python3 -m espnet_gmot check-data --tidy {shlex.quote(str(folder))}"
        if found.bad and len(found.bad) <= max_bad and not tidy:
            raise UserError(f"{folder}: --max_bad leaves utterances out of tables that --tidy writes: give both")
        settle_bad(folder, found.bad, found.total, max_bad, whole=folder in tests, skip=f"{command} --max_bad")
        if found.misread and not tidy:
            count, name = max((len(keys), name) for name, keys in found.misread.items())
            raise UserError(
                f"{folder / name}: ESPnet misreads {count} of {len(found.tables[name])} lines, the first is "
                f"{found.misread[name][0]!r}: byte order marks, invisible characters, unusual spaces or empty lines; "
                f"`{command}` writes it anew, and keeps {name}.orig"
            )
    if folders:
        sources = {str(folder): found.tables["wav.scp"] for folder, found in seen.items() if "wav.scp" in found.tables}
        refuse_leaks(sources, str(folders[0]))
    for folder, found in seen.items():
        if found.misread or found.bad:
            found.tidy()
        left = found.total - len(found.bad)
        done = f", {sum(map(len, found.misread.values()))} lines mended" if found.misread else ""
        print(f"{folder}: {left} utterances, fit for ESPnet{done}", flush=True)


def get_parser() -> argparse.ArgumentParser:
    """The command line of check-data."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot check-data",
        description="Check data directories before an asr.sh reads them, which neither cleans nor checks: tables, ids, "
        "transcripts, the headers of recordings, and whether another set holds recordings of the training set. run.sh "
        "does so before stages 2 and 3 with --espnet_root; without one, `recipe` does all this by itself.",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR", help="data/train data/dev: the training set first"
    )
    parser.add_argument("--tests", nargs="+", type=Path, default=[], metavar="DIR", help="sets that are scored")
    parser.add_argument("--tidy", action="store_true", help="write tables anew that ESPnet misreads; NAME.orig is kept")
    parser.add_argument(
        "--max_bad",
        type=int,
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

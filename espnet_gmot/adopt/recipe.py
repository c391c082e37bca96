"""What a user's recipe folder holds: the sets that asr.sh dumped, their token list, the experiments so far.

A run.sh can't be read in general: it is a program. What it asked of asr.sh can: asr.sh keeps its own command line in
every folder below exp/ ("you can resume the process using this script").
"""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.tables import count_lines

MORE = ("utt2category", "category2utt")
"""Files that ESPnet looks for beside the first data stream, to make batches of one category."""


@dataclass(frozen=True)
class Recipe:
    """A recipe folder's data.

    Attributes:
        train: folder of the training set below the dump folder, speed-perturbed where the recipe does so.
        valid: folder of the validation set.
        token_list: the token list, None where stage 5 hasn't run.
        stats: folder of stage 10's statistics, None where they are absent.
        exp: asr.sh's folder of experiments.
        told: the options that run.sh gave to asr.sh, as far as a folder below exp/ tells.
    """

    train: Path
    valid: Path
    token_list: Path | None
    stats: Path | None
    exp: Path
    told: dict[str, str]

    def tag(self, stem: str) -> str:
        """The name that asr.sh gives to an experiment with a configuration of this name, or of one that is there."""
        words = [stem, self.train.parent.name, *_tokens(self.told)] if self.told else [stem]
        return stem if (self.exp / f"asr_{stem}").is_dir() else "_".join(words)

    def lacks_language_model(self, run: Path) -> bool:
        """Whether asr.sh would decode with a language model, its default, that isn't there."""
        script = run.read_text(encoding="utf8", errors="replace") if run.is_file() else ""
        unwanted = self.told.get("use_lm") == "false" or re.search(r"--use[_-]lm[ =]+[\"']?false", script)
        return not unwanted and not any(self.exp.glob("lm_*/config.yaml"))


def look(train: str = "", valid: str = "", dump: str = "dump", exp: str = "exp", features: str = "") -> Recipe:
    """Find the sets of the recipe in the working directory.

    Args:
        train: name of the training set, with or without ``_sp``; by default what asr.sh was told, else the larger one
            of the two sets in ``dump/raw/org``.
        valid: name of the validation set.
        dump: asr.sh's --dumpdir.
        exp: asr.sh's --expdir.
        features: asr.sh's --feats_type; by default what it was told, else what is there.

    Raises:
        UserError: nothing is dumped, or the sets can't be told.
    """
    told = _told(Path(exp))
    root = _root(Path(dump), features, told)
    names = sorted(path.parent.name for path in root.glob("*/text"))
    _check(root, names, {"--train_set": train, "--valid_set": valid})
    sp = "_sp" if told.get("speed_perturb_factors") else ""
    train = train or (f"{told['train_set']}{sp}" if "train_set" in told else "")
    valid = valid or told.get("valid_set", "")
    train = next((name for name in (train, f"{train}_sp") if name in names), "")
    valid = valid if valid in names else ""
    if not (train and valid):
        train, valid = _guess(root, names, train, valid)
    if train == valid:
        raise UserError(f"--valid_set {valid}: is the training set too: give another one of {', '.join(names)}")
    stats = _stats(Path(exp), root.name, told)
    return Recipe(root / train, root / valid, _token_list(told), stats, Path(exp), told)


def _told(exp: Path) -> dict[str, str]:
    """Options of asr.sh from the newest of the scripts that it leaves in its experiments' folders."""
    for path in sorted(exp.glob("*/run.sh"), key=lambda path: path.stat().st_mtime, reverse=True):
        line = path.read_text(encoding="utf-8", errors="replace").partition(' "$@"')[0]
        try:
            words = shlex.split(line)
        except ValueError:
            continue
        if words and words[0].endswith("asr.sh"):
            return dict(_options(words[1:]))
    return {}


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    for name, value in itertools.pairwise(words):
        if name.startswith("--"):
            yield name[2:].replace("-", "_"), value


def _root(dump: Path, features: str, told: dict[str, str]) -> Path:
    """The dump folder of one kind of features, such as dump/raw."""
    found = sorted({path.parent.parent for path in dump.glob("*/*/text") if path.parent.name != "org"})
    if not found:
        raise UserError(
            f"{dump}/*/*/text: no such files in {Path.cwd()}: work in the recipe's folder, after its "
            "`./run.sh --stop_stage 5`, or name --dumpdir"
        )
    wanted = dump / (features or told.get("feats_type", "raw"))
    if wanted in found or (len(found) == 1 and not features):
        return wanted if wanted in found else found[0]
    raise UserError(f"{wanted}: no dumped sets; there are {', '.join(map(str, found))}: give --feats_type")


def _check(root: Path, names: list[str], given: dict[str, str]) -> None:
    for option, name in given.items():
        if name and name not in names and f"{name}_sp" not in names:
            raise UserError(f"{option} {name}: {root}/{name}/text: no such file; there are {', '.join(names)}")


def _guess(root: Path, names: list[str], train: str, valid: str) -> tuple[str, str]:
    """The two sets that asr.sh keeps an unfiltered copy of, the larger one for training."""
    kept = [name for name in names if (root / "org" / name / "text").is_file() and name not in (train, valid)]
    if train and len(kept) == 1:
        return train, kept[0]
    if valid and len(kept) == 1:
        return kept[0], valid
    if not (train or valid) and len(kept) == 2:
        smaller, larger = sorted(kept, key=lambda name: count_lines(root / name / "text"))
        return larger, smaller
    missing = " and ".join(option for option, name in (("--train_set", train), ("--valid_set", valid)) if not name)
    raise UserError(f"{root}: can't tell which of {', '.join(names)} trains and which validates: give {missing}")


def _token_list(told: dict[str, str]) -> Path | None:
    """Where asr.sh puts the token list."""
    lang = told.get("lang", "noinfo")
    folder = Path("data", "token_list" if lang == "noinfo" else f"{lang}_token_list")
    kind = told.get("token_type", "bpe")
    if kind == "bpe":
        kind = f"bpe_{told.get('bpemode', 'unigram')}{told.get('nbpe', '30')}"
    paths = [folder / kind / "tokens.txt"] if told else list(Path("data").glob("*token_list/*/tokens.txt"))
    return paths[0] if len(paths) == 1 and paths[0].is_file() else None


def _tokens(told: dict[str, str]) -> list[str]:
    """The words for language, tokens and speeds in asr.sh's names of folders."""
    kind = told.get("token_type", "bpe")
    words = [told.get("lang", "noinfo"), kind + (told.get("nbpe", "30") if kind == "bpe" else "")]
    return [word for word in words if word != "noinfo"] + ["sp"] * bool(told.get("speed_perturb_factors"))


def _stats(exp: Path, features: str, told: dict[str, str]) -> Path | None:
    """Where asr.sh puts stage 10's statistics, if they are there."""
    if told.get("asr_stats_dir"):
        paths = [Path(told["asr_stats_dir"])]
    elif told:
        paths = [exp / "_".join(["asr_stats", features, *_tokens(told)])]
    else:
        paths = list(exp.glob(f"asr_stats_{features}_*"))
    return paths[0] if len(paths) == 1 and (paths[0] / "train/speech_shape").is_file() else None

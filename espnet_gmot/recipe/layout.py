"""Where asr.sh keeps everything: folder and file names derived from the options."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from espnet_gmot.errors import UserError


@dataclass
class Layout:
    """One experiment's options and the names that follow from them, exactly as asr.sh derives them.

    Attributes:
        args: the parsed options.
        run_args: the command that was given, quoted for a shell, for the resume scripts.
        train_set, valid_set: set names; ``train_set`` carries ``_sp`` under speed perturbation.
        test_sets: without duplicates and without the validation set.
        dump: formatted data, e.g. dump/raw.
        token_list, bpemodel: token files (``bpemodel`` is "none" without sentencepiece).
        asr_exp, asr_stats, lm_exp, lm_stats: experiment folders.
        inference_tag: name of the decoding folder inside ``asr_exp``.
        skipped: stages that the options leave out.
    """

    args: argparse.Namespace
    run_args: str = ""
    train_set: str = field(init=False)
    valid_set: str = field(init=False)
    test_sets: list[str] = field(init=False)
    dump: Path = field(init=False)
    token_list: Path = field(init=False)
    bpemodel: str = field(init=False)
    asr_exp: Path = field(init=False)
    asr_stats: Path = field(init=False)
    lm_exp: Path = field(init=False)
    lm_stats: Path = field(init=False)
    inference_tag: str = field(init=False)
    skipped: set[int] = field(init=False)

    def __post_init__(self) -> None:
        args = self.args
        for name in ("dumpdir", "expdir"):
            if "," in getattr(args, name) or "\n" in getattr(args, name):
                raise UserError(f"--{name} {getattr(args, name)!r}: ESPnet splits data streams at commas; give another")
        self._name_sets()
        self.dump = Path(args.dumpdir) / args.feats_type
        lists = Path("data") / ("token_list" if args.lang == "noinfo" else f"{args.lang}_token_list")
        if args.token_type == "bpe":
            folder = lists / f"bpe_{args.bpemode}{args.nbpe}"
            self.token_list, self.bpemodel = folder / "tokens.txt", str(folder / "bpe.model")
        else:
            self.token_list, self.bpemodel = lists / args.token_type / "tokens.txt", "none"
        self._name_experiments()
        self.inference_tag = args.inference_tag or self._inference_tag()
        self.skipped = self._skipped()

    def _name_sets(self) -> None:
        args = self.args
        for name, needed in (
            ("train_set", not args.skip_train),
            ("valid_set", not args.skip_train or args.eval_valid_set),
            ("test_sets", not args.eval_valid_set),
        ):
            if needed and not getattr(args, name):
                raise UserError(f"--{name}: required; give the name of a folder in data/")
        if args.train_set and args.train_set in (args.valid_set, *args.test_sets.split()):
            raise UserError(f"--train_set {args.train_set}: must differ from --valid_set and --test_sets")
        self.valid_set = args.valid_set
        self.test_sets = [name for name in dict.fromkeys(args.test_sets.split()) if name != args.valid_set]
        if args.valid_set in args.test_sets.split():
            args.eval_valid_set = True
        self.train_set = args.train_set + ("_sp" if args.speed_perturb_factors else "")

    def _name_experiments(self) -> None:
        args, expdir = self.args, Path(self.args.expdir)
        lang = "" if args.lang == "noinfo" else f"_{args.lang}"
        unit = f"{lang}_{args.token_type}" + (str(args.nbpe) if args.token_type == "bpe" else "")
        perturbed = "_sp" if args.speed_perturb_factors else ""
        tag = args.asr_tag or (
            (Path(args.asr_config).name.removesuffix(".yaml") if args.asr_config else "train")
            + f"_{args.feats_type}{unit}{_squeeze(args.asr_args, ' |=/')}{perturbed}"
        )
        self.asr_exp = Path(args.asr_exp or expdir / f"asr_{tag}")
        self.asr_stats = Path(args.asr_stats_dir or expdir / f"asr_stats_{args.feats_type}{unit}{perturbed}")
        lm_tag = args.lm_tag or (
            (Path(args.lm_config).name.removesuffix(".yaml") if args.lm_config else "train")
            + unit
            + _squeeze(args.lm_args, " |=/")
        )
        self.lm_exp = Path(args.lm_exp or expdir / f"lm_{lm_tag}")
        self.lm_stats = Path(args.lm_stats_dir or expdir / f"lm_stats{unit}")

    def _inference_tag(self) -> str:
        args = self.args
        tag = Path(args.inference_config).name.removesuffix(".yaml") if args.inference_config else "inference"
        tag += _squeeze(args.inference_args, " |=")
        if args.use_lm:
            tag += f"_lm_{self.lm_exp.name}_{_stem(args.inference_lm)}"
        return f"{tag}_asr_model_{_stem(args.inference_asr_model)}"

    def _skipped(self) -> set[int]:
        args = self.args
        skipped = {9, 15}
        if args.skip_data_prep:
            skipped |= {1, 2, 3, 4, 5}
        if args.skip_train:
            skipped |= {2, 4, 5, 6, 7, 8, 10, 11}
        elif not args.use_lm:
            skipped |= {6, 7, 8}
        if args.skip_eval:
            skipped |= {12, 13}
        if args.skip_packing:
            skipped |= {14}
        try:
            return skipped | {int(stage) for stage in args.skip_stages.split()}
        except ValueError as error:
            raise UserError(f"--skip_stages {args.skip_stages!r}: give stage numbers separated by spaces") from error

    def runs(self, stage: int) -> bool:
        """Whether the options ask for this stage."""
        return self.args.stage <= stage <= self.args.stop_stage and stage not in self.skipped

    def wants(self, stage: int) -> bool:
        """Whether this stage is to run now or, as ``--look_to`` says, in a later call."""
        last = max(self.args.stop_stage, self.args.look_to)
        return self.args.stage <= stage <= last and stage not in self.skipped

    def formatted(self, name: str) -> Path:
        """Folder that stage 3 writes for a set: training and validation sets go to ``org``."""
        return self.dump / "org" / name if name in (self.train_set, self.valid_set) else self.dump / name

    def is_scored(self, name: str) -> bool:
        """Whether error rates are counted on this set."""
        return name in self.test_sets or (self.args.eval_valid_set and name == self.valid_set)

    def decoded_sets(self) -> list[str]:
        """Sets to decode and score, relative to ``dump``: test sets, and the unfiltered validation set if asked."""
        return ([f"org/{self.valid_set}"] if self.args.eval_valid_set else []) + self.test_sets

    def speech(self, directory: Path) -> tuple[str, str]:
        """File name and ESPnet data type of a formatted set's input, e.g. ``("wav.scp", "kaldi_ark")``."""
        path = directory / "feats_type"
        if not path.is_file():
            raise UserError(f"{path}: no such file; run stages 3 and 4 first")
        if path.read_text().strip() != "raw":
            return "feats.scp", "kaldi_ark"
        stored = directory / "audio_format"
        audio_format = stored.read_text().strip() if stored.is_file() else self.args.audio_format
        return "wav.scp", "kaldi_ark" if "ark" in audio_format else "sound"

    def lm_train_texts(self) -> list[Path]:
        """Texts that the token list and the language model are made from."""
        return [Path(path) for path in self.args.lm_train_text.split()] or [self.dump / "org" / self.train_set / "text"]

    def lm_dev_text(self) -> Path:
        """Text that validates the language model."""
        return Path(self.args.lm_dev_text or self.dump / "org" / self.valid_set / "text")

    def lm_test_text(self) -> Path:
        """Text whose perplexity is reported."""
        if self.args.lm_test_text:
            return Path(self.args.lm_test_text)
        return self.dump / self.test_sets[0] / "text" if self.test_sets else self.dump / "org" / self.valid_set / "text"


def _squeeze(options: str, removed: str) -> str:
    text = options.replace("--", "_")
    return "".join(character for character in text if character not in removed)


def _stem(path: str) -> str:
    name = path.replace("/", "_")
    return name.rsplit(".", 1)[0] if "." in name else name

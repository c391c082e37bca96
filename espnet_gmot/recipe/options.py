"""The options of ESPnet's asr.sh, parsed as asr.sh parses them: ``--name value``, dashes and underscores alike."""

import argparse
import difflib
import math
from collections.abc import Sequence

from espnet_gmot.errors import UserError
from espnet_gmot.kaldi.wav import sampling_rate
from espnet_gmot.words import refuse_dashes, split_words

# name, default, help; a default of True or False makes a true/false option, an int a whole number
_OPTIONS: tuple[tuple[str, str | int | bool, str], ...] = (
    ("stage", 1, "first stage to run"),
    ("stop_stage", 10000, "last stage to run"),
    ("look_to", 0, "look before the first stage at what the stages to this one need; run.sh sets it"),
    ("skip_stages", "", "stages to leave out, separated by spaces"),
    ("skip_data_prep", False, "leave out stages 1-5"),
    ("skip_train", False, "leave out stages 2 and 4-11"),
    ("skip_eval", False, "leave out stages 12 and 13"),
    ("skip_packing", True, "leave out stage 14"),
    ("eval_valid_set", False, "decode the validation set too"),
    ("ngpu", 1, "number of GPUs; 0 trains on the CPU"),
    ("nj", 32, "number of parts for data and statistics (at most one process a core runs at a time)"),
    ("inference_nj", 32, "number of parts for decoding (at most one process a core runs at a time)"),
    ("gpu_inference", False, "decode on the GPU"),
    ("dumpdir", "dump", "folder for formatted audio or features"),
    ("expdir", "exp", "folder for experiments"),
    ("python", "python3", "accepted as in asr.sh; this engine stays in its own Python"),
    ("local_data_opts", "", "options for local/data.sh"),
    ("speed_perturb_factors", "", 'speed factors, e.g. "0.9 1.0 1.1"'),
    ("feats_type", "raw", "raw, or extracted (data/SET/feats.scp made by stage 1)"),
    ("audio_format", "flac", "wav, flac, wav.ark or flac.ark"),
    ("fs", "16k", "sampling rate"),
    ("min_wav_duration", "0.1", "shortest training utterance, seconds"),
    ("max_wav_duration", "20", "longest training utterance, seconds"),
    ("max_bad", 0, "bad utterances of each set (cut, silent, out of step …) to skip at most; never of test sets"),
    ("token_type", "bpe", "char, word or bpe"),
    ("nbpe", 30, "number of sentencepiece pieces"),
    ("bpemode", "unigram", "unigram or bpe"),
    ("oov", "<unk>", "symbol for unknown tokens"),
    ("blank", "<blank>", "CTC's blank"),
    ("sos_eos", "<sos/eos>", "start and end of a sentence"),
    ("bpe_input_sentence_size", 100000000, "most sentences that sentencepiece reads"),
    ("bpe_nlsyms", "", "symbols that sentencepiece keeps whole: comma-separated, or a file"),
    ("bpe_char_cover", "1.0", "character coverage of sentencepiece"),
    ("use_lm", True, "train a language model (stages 6-8) and decode with it"),
    ("lm_tag", "", "suffix of the language model's folder"),
    ("lm_exp", "", "folder of the language model; overrules lm_tag"),
    ("lm_stats_dir", "", "folder of the language model's statistics"),
    ("lm_config", "", "configuration of the language model"),
    ("lm_args", "", "more options for lm_train"),
    ("asr_tag", "", "suffix of the experiment's folder"),
    ("asr_exp", "", "folder of the experiment; overrules asr_tag"),
    ("asr_stats_dir", "", "folder of the statistics"),
    ("asr_config", "", "configuration of the recogniser"),
    ("asr_args", "", "more options for asr_train"),
    ("pretrained_model", "", "parameters to start from (asr_train's --init_param)"),
    ("ignore_init_mismatch", False, "skip pretrained parameters that don't fit"),
    ("feats_normalize", "global_mvn", "normalisation layer"),
    ("batch_size", 1, "utterances decoded at a time"),
    ("inference_tag", "", "name of the decoding folder"),
    ("inference_config", "", "configuration of decoding"),
    ("inference_args", "", "more options for asr_inference"),
    ("inference_lm", "valid.loss.ave.pth", "the language model's parameters for decoding"),
    ("inference_asr_model", "valid.acc.ave.pth", "the recogniser's parameters for decoding"),
    ("train_set", "", "name of the training set (required)"),
    ("valid_set", "", "name of the validation set (required)"),
    ("test_sets", "", "names of the test sets (required)"),
    ("bpe_train_text", "", "text for sentencepiece; default: the training text"),
    ("lm_train_text", "", "texts for the language model and the token list; default: the training text"),
    ("lm_dev_text", "", "text to validate the language model on; default: the validation text"),
    ("lm_test_text", "", "text for the perplexity; default: the first test set's"),
    ("nlsyms_txt", "none", "list of non-linguistic symbols"),
    ("cleaner", "none", "text cleaner"),
    ("hyp_cleaner", "none", "text cleaner for hypotheses"),
    ("g2p", "none", "grapheme-to-phoneme method"),
    ("lang", "noinfo", "language, part of folder names"),
    ("score_opts", "", "options for sclite"),
    ("local_score_opts", "", "options for local/score.sh"),
    ("asr_speech_fold_length", 800, "fold length for speech"),
    ("asr_text_fold_length", 150, "fold length for text"),
    ("lm_fold_length", 150, "fold length of the language model"),
)

# asr.sh's options that need asr.sh itself: accepted with the default only
_ASR_SH_ONLY: dict[str, str] = {
    "skip_upload_hf": "true",
    "num_nodes": "1",
    "use_lightning": "false",
    "post_process_local_data_opts": "",
    "auxiliary_data_tags": "",
    "multi_columns_input_wav_scp": "false",
    "multi_columns_output_wav_scp": "false",
    "hugging_face_model_name_or_path": "",
    "use_ngram": "false",
    "ngram_exp": "",
    "ngram_num": "3",
    "use_word_lm": "false",
    "num_splits_lm": "1",
    "word_vocab_size": "10000",
    "use_prompt": "false",
    "use_lang_prompt": "false",
    "use_nlp_prompt": "false",
    "asr_task": "asr",
    "num_splits_asr": "1",
    "num_ref": "1",
    "num_inf": "",
    "sot_asr": "false",
    "hf_repo": "",
    "use_k2": "false",
    "k2_ctc_decoding": "true",
    "use_nbest_rescoring": "true",
    "num_paths": "1000",
    "nll_batch_size": "100",
    "k2_config": "./conf/decode_asr_transformer_with_k2.yaml",
    "use_streaming": "false",
    "use_maskctc": "false",
    "inference_ngram": "3gram.bin",
    "download_model": "",
}
_CHOICES = {
    "feats_type": ("raw", "extracted"),
    "audio_format": ("wav", "flac", "wav.ark", "flac.ark"),
    "token_type": ("char", "word", "bpe"),
    "bpemode": ("unigram", "bpe"),
}
# the least and the largest value of numbers, both included; min_wav_duration and the like stay the text that was given
_RANGES: dict[str, tuple[float, float]] = {
    "ngpu": (0, math.inf),
    "nj": (1, math.inf),
    "inference_nj": (1, math.inf),
    "min_wav_duration": (0, math.inf),
    "max_wav_duration": (0, math.inf),
    "max_bad": (0, math.inf),
    "nbpe": (1, math.inf),
    "bpe_input_sentence_size": (0, math.inf),
    "bpe_char_cover": (0.98, 1),  # what sentencepiece takes
    "batch_size": (1, math.inf),
    "asr_speech_fold_length": (1, math.inf),
    "asr_text_fold_length": (1, math.inf),
    "lm_fold_length": (1, math.inf),
}
# run.sh's own options: it passes on what it doesn't know, so a misspelt one ends here
_RUN_SH: tuple[str, ...] = (
    "espnet_root",
    "workdir",
    "data",
    "data_url",
    "max_utts",
    "teacher",
    "teacher_layer",
    "teacher_mode",
)
_RUN_SH += ("teacher_opts", "teacher_name", "frontend_model", "frontend_layer", "frontend_opts")
_STAGES = """stages:
  1 local/data.sh          2 speed perturbation    3 format audio or features    4 drop short, long and empty
  5 token list             6-8 language model      10 statistics                 11 training
  12 decoding              13 scoring              14 packing
Names, folders and files are asr.sh's: an experiment begun with one engine can be continued with the other.

Without a clone: `python3 -m espnet_gmot recipe --init DIR` writes run.sh, conf/ and local/ into DIR."""


def names() -> set[str]:
    """Names of all options that run.sh takes: asr.sh's and its own."""
    return {name for name, *_ in _OPTIONS} | set(_ASR_SH_ONLY) | set(_RUN_SH)


def get_parser() -> argparse.ArgumentParser:
    """All options, with asr.sh's names and defaults."""
    parser = argparse.ArgumentParser(
        prog="python3 -m espnet_gmot recipe",
        description="The stages of ESPnet's asr.sh in one Python process, without an ESPnet checkout.",
        epilog=_STAGES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, default, text in _OPTIONS:
        shown = str(default).lower() if isinstance(default, bool) else default
        kind = _boolean if isinstance(default, bool) else _whole if isinstance(default, int) else str
        suffix = f" (default: {shown})" if shown != "" else ""
        parser.add_argument(
            f"--{name}", type=kind, default=default, choices=_CHOICES.get(name), metavar="X", help=text + suffix
        )
    for name, default in _ASR_SH_ONLY.items():
        parser.add_argument(f"--{name}", default=default, help=argparse.SUPPRESS)
    parser.error = _fail  # type: ignore[assignment, method-assign]  # errors of one line
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse asr.sh's command line.

    Args:
        argv: ``--name value`` pairs. Values may begin with dashes, as in ``--asr_args "--max_epoch 10"``.

    Raises:
        UserError: unknown option (naming the closest), missing or malformed value, or an option that only asr.sh has.
    """
    parser = get_parser()
    if "-h" in argv or "--help" in argv:
        parser.print_help()
        raise SystemExit(0)
    words = [f"--{name}={value}" for name, value in _pairs(argv)]
    refuse_dashes(words)
    args = parser.parse_args(words)
    for name, default in _ASR_SH_ONLY.items():
        if getattr(args, name) != default:
            if "ngram" in name:
                raise UserError(f"--{name} {getattr(args, name)}: needs kenlm and asr.sh; give --espnet_root DIR")
            raise UserError(f"--{name} {getattr(args, name)}: only asr.sh can do this; give --espnet_root DIR")
    _check_numbers(args)
    for name, value in vars(args).items():
        if name.endswith(("_args", "_opts")):
            split_words(f"--{name}", value)
    return args


def _check_numbers(args: argparse.Namespace) -> None:
    """Every number within its range, before the first stage runs."""
    defaults = {name: default for name, default, _ in _OPTIONS}
    for name, (low, high) in _RANGES.items():
        _within(f"--{name}", getattr(args, name), low, high, defaults[name])
    if float(args.min_wav_duration) >= float(args.max_wav_duration):
        raise UserError(
            f"--min_wav_duration {args.min_wav_duration}: not below --max_wav_duration {args.max_wav_duration}, so "
            "that no utterance would be left; give seconds, such as 0.1 and 20"
        )
    sampling_rate(args.fs, "--fs")
    for factor in args.speed_perturb_factors.split():
        _within("--speed_perturb_factors", factor, 0.1, 10, "0.9 1.0 1.1")


def _within(option: str, value: str | int, low: float, high: float, example: str | int) -> None:
    """A number, or text that is one, from `low` to `high`."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if low <= number <= high and math.isfinite(number):
        return
    whole = "a whole number" if isinstance(value, int) else "a number"
    room = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
    raise UserError(f"{option} {value}: give {whole} {room}, such as {example}")


def _pairs(argv: Sequence[str]) -> list[tuple[str, str]]:
    known = [name for name, *_ in _OPTIONS] + list(_ASR_SH_ONLY)
    pairs = []
    words = iter(argv)
    for word in words:
        if not word.startswith("--"):
            raise UserError(f"{word!r}: every argument is an option with a value, as in --stage 1")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known + list(_RUN_SH), 1)
            raise UserError(
                f"--{name}: no such option" + (f"; did you mean --{close[0]}?" if close else "; see --help")
            )
        if not equals:
            following = next(words, None)
            if following is None:
                raise UserError(f"--{name}: give a value")
            value = following
        pairs.append((name, value))
    return pairs


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number; give one such as 1") from error


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


def _fail(message: str) -> None:
    raise UserError(message.removeprefix("argument "))

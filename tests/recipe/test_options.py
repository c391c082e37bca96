"""asr.sh's command line and the names that follow from it."""

import re

import pytest

from espnet_gmot.errors import UserError
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.options import parse

SETS = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "dev test test"]


def test_values_may_look_like_options() -> None:
    args = parse(["--asr_args", "--max_epoch 10", "--inference-args=--nbest=2", "--use_lm", "false", "--nbpe", "500"])
    assert (args.asr_args, args.inference_args, args.use_lm, args.nbpe) == ("--max_epoch 10", "--nbest=2", False, 500)
    assert parse([]).use_lm is True and parse([]).token_type == "bpe"  # asr.sh's defaults


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--asr_confg", "x"], r"--asr_confg: no such option; did you mean --asr_config\?"),
        (["--teachr", "x"], r"did you mean --teacher\?"),
        (["--stage"], "--stage: give a value"),
        (["--stage", "one"], "--stage: 'one' is no whole number; give one such as 1"),
        (["--nj", "4.5"], "--nj: '4.5' is no whole number"),
        (["--nj", "-3"], "--nj -3: give a whole number of at least 1, such as 32"),
        (["--inference_nj", "0"], "--inference_nj 0: give a whole number of at least 1, such as 32"),
        (["--ngpu", "-1"], "--ngpu -1: give a whole number of at least 0, such as 1"),
        (["--nbpe", "0"], "--nbpe 0: give a whole number of at least 1, such as 30"),
        (["--batch_size", "0"], "--batch_size 0: give a whole number of at least 1"),
        (["--max_bad", "-1"], "--max_bad -1: give a whole number of at least 0"),
        (["--min_wav_duration", "abc"], "--min_wav_duration abc: give a number of at least 0, such as 0.1"),
        (["--max_wav_duration", "nan"], "--max_wav_duration nan: give a number of at least 0, such as 20"),
        (
            ["--min_wav_duration", "5", "--max_wav_duration", "5"],
            "--min_wav_duration 5: not below --max_wav_duration 5",
        ),
        (["--bpe_char_cover", "2"], "--bpe_char_cover 2: give a number from 0.98 to 1, such as 1.0"),
        (
            ["--speed_perturb_factors", "0.9 fast"],
            "--speed_perturb_factors fast: give a number from 0.1 to 10, such as 0.9",
        ),
        (["--speed_perturb_factors", "-1"], "--speed_perturb_factors -1: give a number from 0.1"),
        (["--fs", "fast"], "--fs: 'fast' is no sampling rate; write 16k or 16000"),
        (["--fs", "0"], "--fs: '0' is no sampling rate"),
        (["--use_lm", "yes"], "'yes' is neither true nor false"),
        (["--token_type", "chars"], "--token_type: invalid choice: 'chars'"),
        (["train"], "'train': every argument is an option"),
        (["--use_k2", "true"], "--use_k2 true: only asr.sh can do this; give --espnet_root"),
        (["--use_ngram", "true"], "needs kenlm"),
        (["--num_nodes", "2"], "--num_nodes 2: only asr.sh can do this; give --espnet_root"),
    ],
)
def test_bad_options(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(argv)


def test_numbers_at_their_bounds_are_taken_as_they_are_written() -> None:
    args = parse(["--nj", "1", "--ngpu", "0", "--min_wav_duration", "0", "--max_wav_duration", "1e3", "--fs", "8k"])
    assert (args.nj, args.ngpu, args.min_wav_duration, args.max_wav_duration, args.fs) == (1, 0, "0", "1e3", "8k")
    assert parse(["--speed_perturb_factors", "0.9 1.0 1.1"]).speed_perturb_factors == "0.9 1.0 1.1"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--train_set", "train", "--valid_set", "dev"], "--test_sets: required"),
        (["--train_set", "a", "--valid_set", "a", "--test_sets", "b"], "must differ"),
        ([*SETS, "--skip_stages", "1,2"], "--skip_stages '1,2'"),
    ],
)
def test_bad_sets(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Layout(parse(argv))


def test_names_as_asr_sh_derives_them() -> None:
    layout = Layout(
        parse([*SETS, "--asr_config", "conf/a.yaml", "--lang", "zh", "--token_type", "char", "--use_lm", "false",
               "--speed_perturb_factors", "0.9 1.0", "--asr_args", "--max_epoch 10 --x a=b/c",
               "--inference_config", "conf/d.yaml", "--inference_args", "--beam_size 3"])
    )  # fmt: skip
    assert str(layout.asr_exp) == "exp/asr_a_raw_zh_char_max_epoch10_xabc_sp"
    assert str(layout.asr_stats) == "exp/asr_stats_raw_zh_char_sp"
    assert layout.inference_tag == "d_beam_size3_asr_model_valid.acc.ave"
    assert str(layout.token_list) == "data/zh_token_list/char/tokens.txt" and layout.bpemodel == "none"
    assert (layout.train_set, layout.test_sets, layout.decoded_sets()) == ("train_sp", ["test"], ["org/dev", "test"])
    assert [stage for stage in range(1, 16) if layout.runs(stage)] == [1, 2, 3, 4, 5, 10, 11, 12, 13]
    layout = Layout(parse([*SETS, "--lm_config", "conf/l.yaml", "--lm_args", "--max_epoch 3", "--stage", "5"]))
    assert str(layout.lm_exp) == "exp/lm_l_bpe30_max_epoch3" and str(layout.lm_stats) == "exp/lm_stats_bpe30"
    assert str(layout.asr_exp) == "exp/asr_train_raw_bpe30"
    assert layout.bpemodel == "data/token_list/bpe_unigram30/bpe.model"
    assert layout.inference_tag == (
        "inference_lm_lm_l_bpe30_max_epoch3_valid.loss.ave_asr_model_valid.acc.ave"
    )  # fmt: skip
    assert [stage for stage in range(1, 16) if layout.runs(stage)] == [5, 6, 7, 8, 10, 11, 12, 13]


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(["--help"])
    text = capsys.readouterr().out
    assert exit_.value.code == 0
    assert len(re.findall(r"^  --\w+ X", text, flags=re.MULTILINE)) >= 65 and "12 decoding" in text

"""The Python engine from data preparation to packing: asr.sh's names, results, reruns and errors."""

import io
import re
import zipfile
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch
import yaml

from espnet_gmot.kaldi.tables import read_table
from espnet_gmot.report.cer import count_trn, read_result
from espnet_gmot.report.cli import main as report
from tests.recipe.conftest import COUNTS, Experiment
from tests.recipe.corpus import ALPHABET, utterances

pytestmark = pytest.mark.espnet
EXP, STATS = "exp/asr_tiny", "exp/asr_stats_raw_zh_char_sp"
DECODED = f"{EXP}/decode_asr_model_valid.cer_ctc.best"


def test_files_have_the_names_that_asr_sh_gives(experiment: Experiment) -> None:
    experiment.output("all")
    names = [f"data/{name}/wav.scp" for name in ("train", "train_sp0.9", "train_sp", "dev", "test")]
    names += [
        f"dump/raw/{name}/{file}" for name in ("train_sp", "dev", "test") for file in ("wav.scp", "text", "feats_type")
    ]
    names += [f"dump/raw/org/{name}/utt2num_samples" for name in ("train_sp", "dev")]
    names += ["dump/raw/lm_train.txt", "data/zh_token_list/char/tokens.txt", f"{STATS}/train/feats_stats.npz"]
    names += [
        f"{STATS}/{split}/{shape}" for split in ("train", "valid") for shape in ("speech_shape", "text_shape.char")
    ]
    names += [
        f"{EXP}/{name}" for name in ("config.yaml", "train.log", "run.sh", "RESULTS.md", "valid.cer_ctc.best.pth")
    ]
    names += [f"{DECODED}/{name}/text" for name in ("org/dev", "test")]
    names += [
        f"{DECODED}/test/score_{rate}/{file}"
        for rate in ("cer", "wer")
        for file in ("ref.trn", "hyp.trn", "result.txt")
    ]
    assert [name for name in names if not (experiment.folder / name).exists()] == []
    assert (experiment.folder / "dump/raw/dev/feats_type").read_text() == "raw\n"


def test_speed_perturbation(experiment: Experiment) -> None:
    made = {key: value for key, value in utterances(COUNTS).items() if value[0] == "train"}
    texts = read_table(experiment.folder / "dump/raw/train_sp/text")
    assert texts == {name: value[2] for key, value in made.items() for name in (key, f"sp0.9-{key}")}
    assert read_table(experiment.folder / "data/train_sp/utt2spk")["sp0.9-BAC009S01W0000"] == "sp0.9-S01"
    assert re.fullmatch(
        r"sox /\S+/BAC009S01W0000\.wav -t wav - speed 0\.9 \|",
        read_table(experiment.folder / "data/train_sp/wav.scp")["sp0.9-BAC009S01W0000"],
    )
    lengths = read_table(experiment.folder / "dump/raw/train_sp/utt2num_samples")
    assert int(lengths["sp0.9-BAC009S01W0000"]) == round(int(lengths["BAC009S01W0000"]) / 0.9)


def test_formatted_audio_is_the_recording(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    import soundfile

    monkeypatch.chdir(experiment.folder)
    recordings = read_table("data/dev/wav.scp")
    assert len(recordings) == 2 * COUNTS["dev"]
    for key, entry in read_table("dump/raw/dev/wav.scp").items():
        rate, wave = kaldiio.load_mat(entry)
        assert rate == 16000
        assert np.array_equal(wave, soundfile.read(recordings[key])[0])


def test_token_lists(experiment: Experiment) -> None:
    for name in ("bpe_lm", "word"):
        experiment.output(name)
    lists = experiment.folder / "data/zh_token_list"
    tokens = (lists / "char/tokens.txt").read_text().split()
    assert (tokens[:2], tokens[-1]) == (["<blank>", "<unk>"], "<sos/eos>")
    text = "".join(read_table(experiment.folder / "data/train_sp/text").values())
    assert set(tokens[2:-1]) == set(text) <= set(ALPHABET)
    counts = [text.count(token) for token in tokens[2:-1]]
    assert counts == sorted(counts, reverse=True)
    pieces = (lists / "bpe_unigram12/tokens.txt").read_text().split()
    assert (len(pieces), pieces[:2], pieces[-1]) == (12, ["<blank>", "<unk>"], "<sos/eos>")
    words = (lists / "word/tokens.txt").read_text().split()[2:-1]
    assert set(words) == set(read_table(experiment.folder / "data/train_sp/text").values())


def test_scores_agree_with_the_trn_files(experiment: Experiment) -> None:
    folder = experiment.folder / DECODED
    decoded, references = read_table(folder / "test/text"), read_table(experiment.folder / "dump/raw/test/text")
    assert decoded.keys() == references.keys()
    line = (folder / "test/score_cer/ref.trn").read_text().splitlines()[0]
    key = sorted(references)[0]
    assert line == f"{' '.join(references[key])}\t({read_table(experiment.folder / 'data/test/utt2spk')[key]}-{key})"
    counts = read_result(folder / "test/score_cer/result.txt")
    assert counts is not None
    assert (counts.sentences, counts.tokens) == (len(references), sum(map(len, references.values())))
    assert counts.errors >= count_trn(folder / "test/score_cer").errors  # sclite weighs, the minimum can't be larger
    row = f"|decode_asr_model_valid.cer_ctc.best/test|{counts.sentences}|{counts.tokens}|"
    results = (experiment.folder / EXP / "RESULTS.md").read_text()
    assert "### CER" in results and row in results


def test_report_prints_what_was_scored(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    report(["--exp", f"ctc={experiment.folder / EXP}", "--sets", "dev test"])
    lines = capsys.readouterr().out.splitlines()[-2:]
    for line, name in zip(lines, ("org/dev", "test"), strict=True):
        counts = read_result(experiment.folder / DECODED / name / "score_cer/result.txt")
        assert line == f"CER ctc {name.removeprefix('org/')} {counts.errors / counts.tokens:.4f}"


def test_packed_model(experiment: Experiment) -> None:
    packed = experiment.folder / EXP / "asr_tiny_valid.cer_ctc.best.zip"
    names = zipfile.ZipFile(packed).namelist()
    assert "meta.yaml" in names
    assert f"{EXP}/config.yaml" in names and f"{STATS}/train/feats_stats.npz" in names


def test_a_gmot_experiment_is_packed_as_a_stock_model(experiment: Experiment) -> None:
    """Who gets the zip has ESPnet, not the plugin."""
    assert "packed as model: espnet" in experiment.output("gmot_packed")
    packed = zipfile.ZipFile(experiment.folder / "exp/asr_gmot/asr_gmot_valid.cer_ctc.best.zip")
    config = yaml.safe_load(packed.read("exp/asr_gmot/config.yaml"))
    assert config.get("model") in (None, "espnet") and "gmot_conf" not in config["model_conf"]
    with packed.open("exp/asr_gmot/valid.cer_ctc.best.pth") as file:
        assert not [name for name in torch.load(io.BytesIO(file.read())) if name.startswith("gmot.")]


def test_rerun_does_nothing_twice(experiment: Experiment) -> None:
    output = experiment.output("again")
    assert "trained already" in output
    assert output.count("2 of 2 parts are there already") == 3  # statistics, and decoding of two sets
    assert "importing ESPnet" not in output


def test_training_continues(experiment: Experiment) -> None:
    output = experiment.output("more")
    # newest first: the attempt with another configuration, the continuation, the first training
    refused, continued, first = (
        (experiment.folder / EXP / name).read_text() for name in ("train.log", "train.1.log", "train.2.log")
    )
    assert "2epoch results:" in output and "2epoch results:" in continued
    assert "1epoch results:" in first and "1epoch results:" not in continued
    config = yaml.safe_load((experiment.folder / EXP / "config.yaml").read_text())
    assert (config["max_epoch"], config["encoder_conf"]["linear_units"]) == (2, 16)
    assert "size mismatch" in refused  # and left no trace in config.yaml
    assert "parts are there already" not in output  # another model: decoded anew


def test_gmot_trains_decodes_and_resumes_on_a_teacher_stream(experiment: Experiment) -> None:
    output, resumed = experiment.output("gmot"), experiment.output("gmot_resumed")
    folder = experiment.folder / "exp/asr_gmot"
    for log in (output, resumed):
        for name in ("loss_gmot", "loss_wd", "loss_gwd", "loss_align", "marginal_error", "iterations"):
            assert re.search(rf"epoch results: \[train\].*{name}=[\d.]+.*\[valid\].*{name}=[\d.]+", log), name
    assert "1epoch results:" in output and "2epoch results:" in resumed and "1epoch results:" not in resumed
    assert (folder / DECODED.split("/")[-1] / "test" / "score_cer" / "result.txt").is_file()
    saved = yaml.safe_load((folder / "config.yaml").read_text())["model_conf"]["gmot_conf"]
    assert (saved["alpha"], saved["teacher_width"]) == (0.5, 6)
    state = torch.load(folder / "2epoch.pth")
    assert {name.split(".")[1] for name in state if name.startswith("gmot.")} == {
        "adapter",
        "teacher_mean",
        "teacher_rows",
        "time",
    }
    first = torch.load(folder / "1epoch.pth")["gmot.time"]
    assert state["gmot.time"] == 2 * first > 0  # counted on, over the resumption
    events = b"".join(path.read_bytes() for path in folder.glob("tensorboard/train/events*"))
    assert b"loss_gwd" in events


def test_resume_script(experiment: Experiment) -> None:
    script = (experiment.folder / EXP / "run.sh").read_text()
    assert script.startswith(". ./path.sh && python3 -m espnet_gmot recipe ")
    assert "'0.9 1.0'" in script and script.endswith('--stage 11 "$@"; exit $?\n')


def test_language_model(experiment: Experiment) -> None:
    exp = experiment.folder / "exp/lm_lm_zh_bpe12"
    assert (exp / "valid.loss.ave.pth").exists()
    value = float((exp / "perplexity_test/ppl").read_text())
    assert f"perplexity of dump/raw/test/text: {value:.2f}" in experiment.output("bpe_lm")
    assert 1 < value < 40


def test_pieces_with_a_language_model_and_words_decode_and_score(experiment: Experiment) -> None:
    assert "bpe_lm" in experiment.outcomes and "score_ter" not in experiment.output("word_trained")
    bpe = experiment.folder / "exp/asr_bpe"
    decoded = [path for path in bpe.glob("decode_*/test/score_*/result.txt") if "_lm_" in str(path)]
    assert {path.parent.name for path in decoded} == {"score_cer", "score_wer", "score_ter"}
    assert "bpe" in yaml.safe_load((bpe / "config.yaml").read_text())["bpemodel"]
    assert list((experiment.folder / "exp/asr_word").glob("decode_*/test/score_cer/result.txt"))
    assert len(read_table(next((experiment.folder / "exp/asr_word").glob("decode_*/test/text")))) == 4


def test_errors_name_the_cause(experiment: Experiment) -> None:
    assert re.search(r"asr_train failed: .*--max_epohc.*stats\.\d\.log", experiment.error("misspelt_espnet"))
    assert "alhpa" in experiment.error("misspelt_gmot") and "'alpha'" in experiment.error("misspelt_gmot")
    assert "\n" not in experiment.error("misspelt_gmot")
    assert "valid.acc.best.pth: no such file (models there:" in experiment.error("no_model")
    assert re.search(
        r"begun with 9 tokens that are not the \d+ of .*word/tokens\.txt", experiment.error("other_tokens")
    )
    assert re.fullmatch(
        r"--ngpu 64: torch sees \d+ GPUs; give --ngpu (0 to train on the CPU|\d+)", experiment.error("no_gpu")
    )
    assert experiment.error("bpe_too_large").startswith("--nbpe 5000: sentencepiece refuses")


def test_wav_files_that_fit_are_used_as_they_are(experiment: Experiment) -> None:
    experiment.output("wav")
    recordings = read_table(experiment.folder / "data/train_sp/wav.scp")
    formatted = read_table(experiment.folder / "dump_wav/raw/org/train_sp/wav.scp")
    assert all(
        formatted[key] == entry if not entry.endswith("|") else Path(experiment.folder / formatted[key]).is_file()
        for key, entry in recordings.items()
    )

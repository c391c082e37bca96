"""What is fuzzed: every reader of the project with the files it was made for, which are then spoilt."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import torch
import yaml

from espnet_gmot.adopt import configuration
from espnet_gmot.config import GMOTConfig
from espnet_gmot.corpora.aishell import read_corpus
from espnet_gmot.corpora.unpack import unpack
from espnet_gmot.hosts.detokenizer import Transcripts
from espnet_gmot.kaldi import tables
from espnet_gmot.kaldi.ark import check_archive, read_matrix
from espnet_gmot.kaldi.ctm import read_ctm
from espnet_gmot.kaldi.wav import read_sound, read_wav_scp
from espnet_gmot.recipe import compare_options, options
from espnet_gmot.recipe.speed import perturb_data_dir
from espnet_gmot.recipe.systems import check_budget, parse_systems, parse_teachers
from espnet_gmot.report.cer import count_trn, read_result, read_trn
from espnet_gmot.report.measure import read_scores
from espnet_gmot.report.results import read_results
from espnet_gmot.report.scored import token_list
from espnet_gmot.report.training_log import read_training_log
from espnet_gmot.teacher.cleaning import Cleaner, read_symbols
from espnet_gmot.teacher.corpus import read_sentences
from espnet_gmot.teacher.normalise import FeatureStats
from tests.recipe.corpus import corpus_files, tgz, wav_bytes

RESULT = """| SPKR   | # Snt # Wrd | Corr    Sub    Del    Ins    Err  S.Err |
| Sum    |     2     9 |    7      1      1      0      2      1 |
"""
LOG = """[host] 2026-11-26 02:40:01,123 (trainer:321) INFO: 1/2epoch started
[host] 2026-11-26 02:41:01,123 (trainer:386) INFO: 1epoch results: [train] iter_time=1.2e-04, loss=3.5, acc=nan, \
time=1 minute and 2.3 seconds, total_count=12, gpu_max_cached_mem_GB=0.000, [valid] loss_ctc=2.1, cer_ctc=0.5, \
time=2 seconds, total_count=1, [att_plot] time=0 seconds
[host] 2026-11-26 02:42:01,123 (trainer:332) INFO: 2/2epoch started. Estimated time to finish: 1 minute
[Early stopping]
"""
SPEECH = "u1 /data/a b.wav\nu2 wav.ark:16\nu3 sox 'c d.wav' -t wav - speed 0.9 |\nu4\tflac -d |\n"
TEXT = "u1 你好 world\nu2\t<NOISE> 一 二\r\n\ufeffu3 \u3000三\u200b四\n"
GMOT = "preset: gmot\nalpha: 0.5\nepsilon: 1e-2\ntap: [encoder, 3]\nteacher_layer: [4, -1]\nteacher_width: 8\n"
CONFIG = (
    "encoder: e_branchformer\nmodel: gmot\nmodel_conf: {ctc_weight: 1.0, gmot_conf: {preset: gmot}}\nmax_epoch: 2\n"
)
STOCK = "# mine\nencoder: conformer\nmodel_conf:\n    ctc_weight: 0.3  # why not\noptim_conf: {lr: 0.1}\nmax_epoch: 2\n"
RESULTS = "system,seed,set,experiment,utterances,characters,substitutions,deletions,insertions,errors,wrong,cer\n"


@dataclass(frozen=True)
class Parser:
    """One reader.

    Attributes:
        read: takes the file, which lies in a folder of its own.
        seeds: contents that it was made for, or nearly.
    """

    read: Callable[[Path], Any]
    seeds: tuple[bytes, ...]


def text(*seeds: str) -> tuple[bytes, ...]:
    """Contents in UTF-8."""
    return tuple(seed.encode() for seed in seeds)


def _trn(path: Path) -> None:
    read_trn(path)
    (path.parent / "ref.trn").write_bytes(b"a b\t(s-u)\n")
    path.rename(path.parent / "hyp.trn")
    count_trn(path.parent)


def _log(path: Path) -> None:
    path.rename(path.parent / "train.log")
    assert read_training_log(path.parent).seconds is not None


def _data_dir(path: Path) -> None:
    path.rename(path.parent / "wav.scp")
    for name, value in (("utt2spk", "s"), ("text", "一")):
        (path.parent / name).write_text("".join(f"u{index} {value}\n" for index in range(1, 5)))
    perturb_data_dir(path.parent, path.parent / "sp", "0.9")
    again = tables.read_table(path.parent / "sp/wav.scp")
    assert set(again) == {f"sp0.9-{key}" for key in tables.read_table(path.parent / "wav.scp")}


def _corpus(path: Path) -> None:
    (path.parent / "transcript").mkdir()
    path.rename(path.parent / "transcript/aishell_transcript_v0.8.txt")
    read_corpus(path.parent)


def _table(path: Path) -> None:
    table = tables.read_table(path)
    tables.write_table(path, table)
    assert tables.read_table(path) == {key: table[key] for key in sorted(table)}
    tables.split_table(path, [path.with_suffix(".1"), path.with_suffix(".2")])
    assert tables.count_lines(path) == len(table)


def _transcripts(path: Path) -> None:
    texts = tables.read_transcripts(path, allow_empty=True)
    tables.write_table(path, texts)
    assert tables.read_transcripts(path, allow_empty=True) == texts  # cleaning twice cleans no more


def _tokens(path: Path) -> None:
    tokens = [line for _, line in tables.read_lines(path)]
    transcripts = Transcripts(tokens)
    every = torch.arange(len(tokens))[None]
    assert len(transcripts(every, torch.tensor([len(tokens)]))) == 1


def _symbols(path: Path) -> None:
    clean = Cleaner(read_symbols(path))
    for sample in ("a<NOISE>b 一", "<b> [1]", path.read_text(encoding="utf-8-sig")):
        once = clean(sample)
        assert once == " ".join(once.split())


def _yaml(read: Callable[[Any], Any]) -> Callable[[Path], Any]:
    """Fuzzes what reads a YAML file's content; broken YAML itself is ESPnet's to name."""

    def parse(path: Path) -> None:
        """Parse, then read."""
        try:
            content = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, UnicodeDecodeError, ValueError):
            return
        read(content)

    return parse


def _systems(path: Path) -> None:
    (path.parent / "ctc.yaml").write_text(STOCK)
    (path.parent / "gmot.yaml").write_text(CONFIG)
    words = path.read_bytes().decode("utf-8", errors="surrogateescape")
    first, _, second = words.partition("\n")
    teachers = parse_teachers(second)
    systems = parse_systems(first, list(teachers), "", path.parent)
    check_budget(systems, [])
    for system in systems:
        assert isinstance(system.asr_args, str) and "/" not in system.slug


def _config(path: Path) -> None:
    parse_systems(f"{path.name} gmot={path.name}@plm:w_ot=2", ["plm"], "", path.parent)


def _adopt(path: Path) -> None:
    new = configuration.adopted(path, {"preset": "gmot"}, {"init_param": ["x.pth"]})
    assert yaml.safe_load(new)["model"] == "gmot"


def _ark(path: Path) -> None:
    for entry in (f"{path}:2", str(path)):
        assert np.isfinite(read_matrix(entry)).all()


def _archive_place(path: Path) -> None:
    check_archive(path, [2], 3)


def _wav(path: Path) -> None:
    assert len(read_sound(str(path)).samples)


def _wav_in_ark(path: Path) -> None:
    assert len(read_sound(f"{path}:2").samples)


def _words(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8", errors="surrogateescape").split("\n")


def _options(path: Path) -> None:
    options.parse(_words(path))


def _compare(path: Path) -> None:
    compare_options.parse(_words(path))


def _unpack(path: Path) -> None:
    corpus = unpack(path, path.parent / "in")
    assert all(file.resolve().is_relative_to(path.parent.resolve()) for file in corpus.rglob("*"))


def _archive(**matrices: np.ndarray) -> bytes:
    stream = io.BytesIO()
    kaldiio.save_ark(stream, matrices)
    return stream.getvalue()


def _stats() -> bytes:
    stream = io.BytesIO()
    note = '{"source": {"model_digest": "x"}, "key": "k"}'
    np.savez(stream, note=note, mean=np.zeros((1, 2), np.float32), rows=3)
    return stream.getvalue()


STATS = _stats()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind in (("data_aishell/wav/x.wav", tarfile.REGTYPE), ("data_aishell/a", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "../.."
            archive.addfile(member)
    return stream.getvalue()


_SMALL = np.arange(6, dtype=np.float32).reshape(2, 3)
_RIFF = wav_bytes("一", seconds=0.01)
PARSERS: dict[str, Parser] = {
    "table": Parser(_table, text(TEXT, SPEECH)),
    "transcripts": Parser(_transcripts, text(TEXT)),
    "wav.scp": Parser(read_wav_scp, text(SPEECH)),
    "data directory": Parser(_data_dir, text(SPEECH)),
    "AISHELL's transcript": Parser(_corpus, text(TEXT)),
    "sentences": Parser(lambda path: (read_sentences([path], "plain"), read_sentences([path], "kaldi")), text(TEXT)),
    "token list": Parser(
        _tokens, text("<blank>\n<unk>\n▁a\n<0xE4>\n##b\nĠ\n你\n<space>\n<sos/eos>\n", "你\n[NOISE]\n")
    ),
    "symbols": Parser(_symbols, text("<NOISE>\nNOISE\n[b]\n(", "\\d+\n|\n*")),
    "gmot_conf": Parser(_yaml(GMOTConfig.from_dict), text(GMOT, "[1, 2]", "alhpa: 1", "stack: 2\npool: 3")),
    "systems": Parser(_systems, text("ctc gmot-t=gmot@e5:w_ot=1,tap=[1,2]\ne5=DIR", "ctc.yaml:encoder_conf.x.y=1\n")),
    "a system's configuration": Parser(_config, text(CONFIG, STOCK)),
    "adopted configuration": Parser(_adopt, text(STOCK, "model_conf:\nmax_epoch: 1\n", "a: [1]\nmodel_conf: {}\n")),
    "options of recipe": Parser(
        _options,
        text("--stage\n1\n--asr_args\n--a 'b c'\n--train_set\nt\n--fs=16k", "--nj=1e400\n--local_data_opts\n'x"),
    ),
    "options of compare": Parser(_compare, text("--systems\nctc\n--seeds\n0 1\n--final", "--jobs=x\n--data\n'")),
    "CTM": Parser(read_ctm, text(";; x\nu1 1 0.10 0.2 你 0.9\nu1 1 0.05 nan a\n")),
    "trn": Parser(_trn, text("一 二\t(s-u)\n(s-v)\n", "a b (s-u)")),
    "result.txt": Parser(read_result, text(RESULT)),
    "training log": Parser(_log, text(LOG)),
    "results.csv": Parser(read_results, text(RESULTS + "ctc,0,dev,x,2,9,1,1,0,2,1,0.2\n")),
    "scores.csv": Parser(read_scores, text("experiment,model_file,aligner,utterances\nx,y,plan,1\n")),
    "experiment's tokens": Parser(
        lambda path: (path.rename(path.parent / "config.yaml"), token_list(path.parent)),
        text("token_list: [<blank>, a]\n"),
    ),
    "wav": Parser(_wav, (_RIFF, _RIFF[:44], b"RF64" + _RIFF[4:], b"fLaC" + bytes(40))),
    "wav in an archive": Parser(_wav_in_ark, (b"u " + _RIFF, b"u AUDIO\x04" + bytes(4) + _RIFF)),
    "features": Parser(
        _ark, (_archive(u=_SMALL), b"u \0BCM2 " + bytes(40), b"u PKL" + bytes(20), b"u [ 1 2\n 3 4 ]\n")
    ),
    "archive's headers": Parser(_archive_place, (_archive(u=_SMALL), b"u \0BCM " + bytes(40))),
    "teacher's statistics": Parser(FeatureStats.load, (STATS,)),
    "archive": Parser(
        _unpack, (_tar(), tgz({"data_aishell/x": b"1"}), tgz(corpus_files({"train": 1, "dev": 1, "test": 1})))
    ),
}

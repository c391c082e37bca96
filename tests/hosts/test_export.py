"""export: what leaves is a stock experiment, and stock ESPnet decodes it as the plugin decoded the original."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from espnet_gmot.errors import UserError
from espnet_gmot.hosts import export as exporting
from espnet_gmot.hosts import portable
from espnet_gmot.hosts.stock import Absent, Decoded

pytestmark = pytest.mark.espnet
FRONTEND = {"input_size": None, "frontend": "default", "frontend_conf": {"n_fft": 256, "hop_length": 128, "n_mels": 8}}
TEACHER = ["dump/teacher.scp", "teacher", "kaldi_ark"]
SPEECH, TEXT = ["dump/wav.scp", "speech", "sound"], ["dump/text", "text", "text"]


@pytest.fixture
def trained(
    build: Callable[..., torch.nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Path, torch.nn.Module]]:
    """A function that leaves an experiment in the recipe's folder, the working directory, as ESPnet does."""

    def trained(host: str = "hybrid", *, residual: bool = True, **more: Any) -> tuple[Path, torch.nn.Module]:
        from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump

        monkeypatch.chdir(tmp_path)
        Path("exp/stats").mkdir(parents=True)
        stats = {"count": 100, "sum": np.linspace(-3, 3, 8) * 100, "sum_square": np.linspace(10, 18, 8) * 100}
        np.savez("exp/stats/feats_stats.npz", **stats)
        more = {"normalize": "global_mvn", "normalize_conf": {"stats_file": "exp/stats/feats_stats.npz"}, **more}
        model = build(host, gmot_conf={"teacher_width": 12, "residual": residual}, **more)
        if residual:
            torch.nn.init.normal_(model.gmot.back.weight, std=0.3)
            torch.nn.init.normal_(model.gmot.back.bias)
        config = vars(model.args) | {
            "train_data_path_and_name_and_type": [SPEECH, TEXT, TEACHER],
            "valid_data_path_and_name_and_type": [SPEECH, TEXT, TEACHER],
            "train_shape_file": ["s/train/speech_shape", "s/train/teacher_shape", "s/train/text_shape.char"],
            "fold_length": [800, 700, 150],
            "allow_variable_data_keys": True,
            "best_model_criterion": [["valid", "acc", "max"]],
        }
        experiment = Path("exp/asr")
        experiment.mkdir()
        (experiment / "config.yaml").write_text(yaml_no_alias_safe_dump(config), encoding="utf8")
        torch.save(model.state_dict(), experiment / "valid.acc.ave.pth")
        return experiment, model.eval()

    return trained


def test_stock_espnet_decodes_the_export_alike(trained: Callable, capsys: pytest.CaptureFixture) -> None:
    """The whole command once: merge, check in a process without the plugin, and the zip."""
    import soundfile
    from espnet2.main_funcs.pack_funcs import unpack
    from espnet2.tasks.asr import ASRTask

    experiment, _ = trained(**FRONTEND)
    soundfile.write("a.wav", np.random.default_rng(1).standard_normal(8000) * 0.1, 16000)
    words = [str(experiment), "--out", "stock/mine", "--check_wav", "a.wav", "--zip"]
    assert exporting.main(words) == 0
    said = capsys.readouterr().out
    assert "none missing, none unexpected" in said and "the residual path, into the CTC head" in said
    assert "feats_stats.npz" in said and "as the original does" in said
    files = {path.name for path in Path("stock/mine").iterdir()}
    assert files == {"config.yaml", "valid.acc.ave.pth", "feats_stats.npz", "mine_valid.acc.ave.zip"}

    found = unpack("stock/mine/mine_valid.acc.ave.zip", "elsewhere")
    Path("stock").rename("gone")  # the zip must live on its own
    stock, _ = ASRTask.build_model_from_file(found["asr_train_config"], found["asr_model_file"])
    assert type(stock).__module__ == "espnet2.asr.espnet_model"
    with pytest.raises(UserError, match="holds an experiment already"):
        exporting.main([str(experiment), "--out", "gone/mine"])
    soundfile.write("a.wav", np.random.default_rng(1).standard_normal(100) * 0.1, 16000)
    with pytest.raises(UserError, match=r"--check_wav a.wav: too short for this model"):
        exporting.main([str(experiment), "--out", "another", "--check_wav", "a.wav"])


def test_the_merged_head_is_the_path_and_the_head(trained: Callable, batch: dict) -> None:
    experiment, model = trained("ctc")
    stock = exporting.export(experiment, Path("out")).model.eval()
    assert stock.state_dict().keys() == {name for name in model.state_dict() if not name.startswith("gmot.")}
    with torch.no_grad():
        encoded, _ = model.encode(batch["speech"].clone(), batch["speech_lengths"])
        again, _ = stock.encode(batch["speech"].clone(), batch["speech_lengths"])
        expected, found = model.ctc.log_softmax(encoded), stock.ctc.log_softmax(again)
        unmerged = torch.nn.functional.linear(encoded, *model.ctc.ctc_lo.parameters()).log_softmax(-1)
    assert torch.equal(encoded, again)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (unmerged - expected).abs().max() > 0.1  # the path does matter


def test_the_configuration_knows_nothing_of_the_plugin(trained: Callable, task: ModuleType) -> None:
    experiment, _ = trained("ctc", residual=False, non_linguistic_symbols="exp/stats/nlsyms.txt")
    Path("exp/stats/nlsyms.txt").write_text("<noise>\n")
    exported = exporting.export(experiment, Path("out"))
    text = exported.config.read_text(encoding="utf8")
    config = yaml.safe_load(text)
    assert "gmot" not in text and "teacher" not in text
    assert config["model"] == "espnet" and config["allow_variable_data_keys"] is False
    assert config["train_data_path_and_name_and_type"] == [SPEECH, TEXT] and config["fold_length"] == [800, 150]
    assert config["train_shape_file"] == ["s/train/speech_shape", "s/train/text_shape.char"]
    # absolute paths inside the folder, relative ones for the zip
    stats = Path("out/feats_stats.npz").absolute()
    assert config["normalize_conf"]["stats_file"] == str(stats) and stats.is_file()
    assert Path(config["non_linguistic_symbols"]).read_text() == "<noise>\n"
    assert portable.relative(config, Path("out"))["normalize_conf"]["stats_file"] == "feats_stats.npz"
    # as large as a stock checkpoint of the same host
    stock = task.ASRTask.build_model_from_file(exported.config)[0].state_dict()
    torch.save(stock, "valid.acc.ave.pth")
    assert exported.model_file.stat().st_size == Path("valid.acc.ave.pth").stat().st_size


def test_paths_are_found_from_elsewhere(trained: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = trained("ctc", residual=False)[0].absolute()
    (tmp_path / "elsewhere/exp/stats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("exp/stats/feats_stats.npz").write_bytes(b"another recipe's")
    exporting.export(experiment, Path("out"))
    assert Path("out/feats_stats.npz").read_bytes() == (tmp_path / "exp/stats/feats_stats.npz").read_bytes()
    Path("exp/stats/feats_stats.npz").unlink()
    (tmp_path / "exp/stats/feats_stats.npz").unlink()
    with pytest.raises(UserError, match=r"stats_file: 'exp/stats/feats_stats.npz': no such file"):
        exporting.export(experiment, Path("again"))


def test_foreign_tensors_are_refused(trained: Callable) -> None:
    experiment, model = trained("ctc", residual=False)
    state = {**model.state_dict(), "encoder.odd": torch.zeros(1)}
    del state["encoder.after_norm.bias"]
    torch.save(state, experiment / "latest.pth")
    with pytest.raises(UserError, match=r"missing: encoder.after_norm.bias \(1\); unexpected: encoder.odd \(1\)"):
        exporting.export(experiment, Path("out"), "latest.pth")
    torch.save({"model": model.state_dict(), "optimizers": []}, experiment / "checkpoint.pth")
    with pytest.raises(UserError, match="not a model's parameters"):
        exporting.export(experiment, Path("out"), "checkpoint.pth")
    with pytest.raises(UserError, match="residual is True"):
        exporting.strip(model.state_dict(), True, Path("x.pth"))
    with pytest.raises(UserError, match=r"holds none of x.pth; of \*.pth it has: checkpoint.pth, latest.pth"):
        exporting.export(experiment, Path("out"), "x.pth")
    assert not Path("out/config.yaml").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frontend": "hf_speech", "input_size": None}, "frontend: hf_speech .* --feats_type extracted"),
        ({"model": "espnet"}, "model: espnet is ESPnet's own: there is nothing to export"),
        ({"use_adapter": True}, "use_adapter: true"),
    ],
)
def test_the_option_in_the_way_is_named(task: ModuleType, options: dict, message: str) -> None:
    config = {"model": "gmot", "model_conf": {}, "input_size": 8, **options}
    with pytest.raises(UserError, match=message):
        portable.refuse(config, task.ASRTask, Path("exp/asr"))


def test_a_different_answer_is_no_success() -> None:
    log_probs = np.zeros((3, 4))
    original = Decoded("今天", ["今", "天"], log_probs)
    assert exporting.compare(original, Decoded("今天", [], log_probs + 5e-5), Path("out")) == pytest.approx(5e-5)
    for other in (Decoded("今", [], log_probs), Decoded("今天", [], log_probs + 2e-4)):
        with pytest.raises(UserError, match="don't use this export"):
            exporting.compare(original, other, Path("out"))


def test_an_absent_package_cannot_be_imported() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"espnet_gmot\.launcher"):
        Absent("espnet_gmot").find_spec("espnet_gmot.launcher", None)
    assert Absent("espnet_gmot").find_spec("espnet_gmot_other", None) is None


def test_stage_14_packs_a_stock_model(
    trained: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """What asr.sh asks of the launcher: the same names in the zip, a stock model behind them."""
    from espnet2.main_funcs.pack_funcs import unpack
    from espnet2.tasks.asr import ASRTask

    from espnet_gmot import launcher

    experiment, model = trained(**FRONTEND)
    (experiment / "images").mkdir()
    (experiment / "images/acc.png").touch()
    Path("exp/lm").mkdir()
    Path("exp/lm/config.yaml").write_text("lm: seq_rnn\n")
    Path("exp/lm/valid.loss.ave.pth").write_bytes(b"lm")
    before = {path: path.read_bytes() for path in Path("exp").rglob("*") if path.is_file()}
    words = ["asr", "--asr_train_config", "exp/asr/config.yaml", "--asr_model_file", "exp/asr/valid.acc.ave.pth"]
    words += ["--lm_train_config", "exp/lm/config.yaml", "--lm_file", "exp/lm/valid.loss.ave.pth"]
    words += ["--option", "exp/stats/feats_stats.npz", "--option", "exp/asr/images", "--outpath", "exp/asr/asr.zip"]
    assert launcher.main(["-m", "espnet2.bin.pack", *words]) == 0
    assert "packed as model: espnet, 9 tensors of gmot left behind, the residual path merged" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    found = unpack("exp/asr/asr.zip", "elsewhere")
    names = {str(path.relative_to("elsewhere")) for path in Path("elsewhere").rglob("*") if path.is_file()}
    assert names == {str(path) for path in before} | {"meta.yaml"} - {"exp/asr/asr.zip"}
    Path("exp").rename("gone")
    stock, args = ASRTask.build_model_from_file(found["asr_train_config"], found["asr_model_file"])
    assert type(stock).__module__ == "espnet2.asr.espnet_model" and found["lm_file"].endswith("valid.loss.ave.pth")
    assert args.normalize_conf["stats_file"].startswith("elsewhere/")
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in stock.state_dict().items() if "ctc_lo" not in name)


def test_stage_14_packs_what_lies_elsewhere(trained: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments on another disk (--expdir /scratch/exp), of like names: none is written to, all are in the zip."""
    from espnet2.main_funcs.pack_funcs import unpack
    from espnet2.tasks.asr import ASRTask

    from espnet_gmot.hosts.packing import pack

    experiment, _ = trained("ctc", residual=False)
    exp, stats = tmp_path / "exp", f"{tmp_path}/exp/stats/feats_stats.npz"
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    (experiment / "config.yaml").write_text(yaml.safe_dump({**config, "normalize_conf": {"stats_file": stats}}))
    (exp / "lm").mkdir()
    (exp / "lm/config.yaml").write_text("lm: seq_rnn\n")
    (exp / "lm/valid.acc.ave.pth").write_bytes(b"lm")
    before = {path: path.read_bytes() for path in exp.rglob("*") if path.is_file()}
    (tmp_path / "recipe/conf").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "recipe")
    words = ["asr", "--asr_train_config", f"{exp}/asr/config.yaml", "--asr_model_file", f"{exp}/asr/valid.acc.ave.pth"]
    words += ["--lm_train_config", "../exp/lm/config.yaml", "--lm_file", "conf/../../exp/lm/valid.acc.ave.pth"]
    words += ["--option", f"{exp}/asr/config.yaml", "--option", stats, "--outpath", f"{exp}/asr/asr.zip"]
    assert pack(words)
    assert {path: path.read_bytes() for path in before} == before
    found = unpack(exp / "asr/asr.zip", "elsewhere")
    exp.rename(tmp_path / "gone")
    stock, args = ASRTask.build_model_from_file(found["asr_train_config"], found["asr_model_file"])
    assert type(stock).__module__ == "espnet2.asr.espnet_model"
    assert args.normalize_conf["stats_file"].startswith("elsewhere/")
    assert Path(found["lm_file"]).read_bytes() == b"lm"
    assert yaml.safe_load(Path(found["lm_train_config"]).read_text()) == {"lm": "seq_rnn"}


def test_a_model_that_stock_espnet_lacks_is_packed_with_a_warning(
    trained: Callable, capsys: pytest.CaptureFixture
) -> None:
    from espnet_gmot.hosts.packing import pack

    experiment, _ = trained(residual=False)
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    (experiment / "config.yaml").write_text(yaml.safe_dump({**config, "use_adapter": True}))
    words = ["asr", "--asr_train_config", "exp/asr/config.yaml", "--asr_model_file", "exp/asr/valid.acc.ave.pth"]
    assert pack([*words, "--outpath", "x.zip"]) is False
    assert "whoever unpacks this zip needs the plugin" in capsys.readouterr().err
    (experiment / "config.yaml").write_text(yaml.safe_dump({**config, "model": "espnet"}))
    assert pack([*words, "--outpath", "x.zip"]) is False and pack(["tts"]) is False


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (b"", r"damaged \(0 bytes"),
        (b"PK\x03\x04 cut", r"damaged \(8 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git-LFS pointer, no model: git lfs pull"),
        (b"\x80\x04\x95 no pickle", r"damaged \(13 bytes"),
    ],
)
def test_a_model_that_cannot_be_read_is_named(tmp_path: Path, spoilt: bytes, message: str) -> None:
    from espnet_gmot.hosts.export import read_config, read_state

    (tmp_path / "1epoch.pth").write_bytes(spoilt)
    with pytest.raises(UserError, match=rf"1epoch\.pth: {message}"):
        read_state(tmp_path / "1epoch.pth")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(UserError, match=r"config\.yaml: no YAML"):
        read_config(tmp_path)

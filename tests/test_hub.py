"""Models' folders and hub names: one loader for teachers and speech encoders, and messages that name the true fault."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
from espnet_gmot.errors import UserError
from espnet_gmot.hub import SPEECH, TEACHER, Kind, from_pretrained, is_folder
from espnet_gmot.speech.encoders import load_speech_encoder
from espnet_gmot.teacher.plm import PLMTeacher

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 400000000\n"
TEXT = ["今天天气很好", "我们去看书"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    """A whole folder of each kind."""
    import transformers

    from tests.teacher.conftest import save_bert

    folder = tmp_path_factory.mktemp("models")
    size = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    size |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "max_source_positions": 40}
    config = transformers.WhisperConfig(**size, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    transformers.WhisperModel(config).save_pretrained(folder / "whisper")
    transformers.WhisperFeatureExtractor().save_pretrained(folder / "whisper")
    return {TEACHER: save_bert(folder / "bert", TEXT), SPEECH: folder / "whisper"}


@pytest.fixture(params=[TEACHER, SPEECH], ids=lambda kind: kind.name)
def model(request: pytest.FixtureRequest, folders: dict, tmp_path: Path) -> tuple[Kind, Path, Callable[[], Any]]:
    """A kind, a folder of its own to damage, and the way to load it."""
    folder = Path(shutil.copytree(folders[request.param], tmp_path / "model"))
    if request.param is TEACHER:
        return request.param, folder, lambda: PLMTeacher(str(folder))(TEXT)
    return request.param, folder, lambda: load_speech_encoder(str(folder))


def assert_refused(model: tuple[Kind, Path, Callable[[], Any]], message: str) -> None:
    kind, folder, load = model
    with pytest.raises(UserError, match=message) as error:
        load()
    assert str(error.value).startswith(f"{kind.name} {str(folder)!r}: ") and "\n" not in str(error.value)


def test_a_whole_folder_loads(model: tuple) -> None:
    assert model[2]() is not None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_named(model: tuple, name: str) -> None:
    (model[1] / name).write_text(POINTER)
    assert_refused(model, rf"{name} is an LFS pointer, not the file itself; git -C .*model lfs pull")


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_weights_that_were_cut_are_named(model: tuple, left: int) -> None:
    path = model[1] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    assert_refused(model, rf"model.safetensors is damaged or cut short \({path.stat().st_size} bytes\)")


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_has_to_be_merged_first(model: tuple, alone: bool) -> None:
    if alone:
        for path in model[1].iterdir():
            path.unlink()
    (model[1] / "adapter_config.json").write_text("{}")
    (model[1] / "adapter_model.safetensors").touch()
    assert_refused(model, "an adapter .*merge it first")


def test_a_models_own_code_never_runs(model: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the configuration nor by what else a folder names; nobody is asked."""
    kind, folder, _ = model
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Config: pass\n")
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "auto_map": {"AutoConfig": "evil.Config"}}))
    assert_refused(model, r"code of its own \(auto_map\), which is never run here; take a model of an architecture")
    path.write_text(json.dumps({**whole, "model_type": "unheard-of"}))
    assert_refused(model, "unheard-of")
    path.write_text(json.dumps(whole))
    if kind is TEACHER:
        settings = {"tokenizer_class": "Config", "auto_map": {"AutoTokenizer": ["evil.Config", None]}}
        path = folder / "tokenizer_config.json"
    else:
        settings = {"feature_extractor_type": "Config", "auto_map": {"AutoFeatureExtractor": "evil.Config"}}
        path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    try:
        model[2]()
    except UserError as error:
        assert "code of its own" in str(error)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("error", [TypeError, AttributeError])
def test_what_versions_cause_is_not_blamed_on_the_folder(folders: dict, error: type[Exception]) -> None:
    class AutoModel:
        @staticmethod
        def from_pretrained(*_: object, **options: object) -> None:
            assert options["trust_remote_code"] is False
            raise error("from_pretrained() got an unexpected keyword argument 'dtype'")

    with pytest.raises(error, match="unexpected keyword"):
        from_pretrained(AutoModel, str(folders[TEACHER]))


@pytest.mark.parametrize("kind", [TEACHER, SPEECH], ids=lambda kind: kind.name)
def test_one_rule_tells_folders_from_hub_names(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()
    (tmp_path / "file").touch()
    for name in ("./none", "~/none", "exp/none", "a/b/c", "", "file"):
        with pytest.raises(UserError, match=f"^{kind.name} .*; give a folder .* such as {kind.example}"):
            is_folder(name, kind)
    assert not is_folder(kind.example, kind) and is_folder("exp", kind)


def test_a_hub_name_that_nobody_has_is_named() -> None:
    for kind, load in ((TEACHER, lambda name: PLMTeacher(name)(TEXT)), (SPEECH, load_speech_encoder)):
        with pytest.raises(UserError, match=f"^{kind.name} 'no-such-org/none': .*hub did not provide it"):
            load("no-such-org/none")

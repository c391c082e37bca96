"""Find and load Hugging Face models, of text or speech; what the user can mend ends in a ``UserError`` that says how.

A folder never causes network access; a hub name goes through huggingface_hub, which obeys HF_HUB_OFFLINE and HF_HOME.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_gmot.errors import UserError
from espnet_gmot.files import sha256

if TYPE_CHECKING:  # the doctor looks at folders without torch
    import torch

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_VOCABULARIES = ("vocab.txt", "tokenizer.json", "vocab.json", "*.model", "*.spm", "*.bpe.model")
_LFS = b"version https://git-lfs.github.com/spec/"
_HASHED = ("config.json", "tokenizer_config.json", *_VOCABULARIES, *_WEIGHTS)


def check_device(device: str) -> None:
    """Raise a ``UserError`` unless torch can compute on ``device`` here."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: not usable here ({str(error).splitlines()[0]}); use cpu") from error


@dataclass(frozen=True)
class Kind:
    """What a model is for.

    Attributes:
        name: what messages call it.
        part: what its folder holds beside config.json and weights.
        patterns: the names of such files; one of them is enough.
        example: a hub name.
    """

    name: str
    part: str
    patterns: tuple[str, ...]
    example: str


TEACHER = Kind("teacher", "a vocabulary (vocab.txt, tokenizer.json or *.model)", _VOCABULARIES, "bert-base-chinese")
# transformers 5 writes the second name where a tokenizer is saved along
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
SPEECH = Kind("speech model", "preprocessor_config.json", _PREPROCESSORS, "openai/whisper-base")


def is_folder(model: str, kind: Kind = TEACHER) -> bool:
    """Whether ``model`` means a folder on this machine rather than a name on the hub.

    Raises:
        UserError: it reads like a path (it starts with ``/``, ``.`` or ``~``, has two slashes, or its parent folder
            exists) but there is no such folder.
    """
    path = Path(model).expanduser()
    if model and path.is_dir():
        return True
    pathlike = model[:1] in "/.~" or model.count("/") > 1 or ("/" in model and path.parent.is_dir())
    if not model or path.exists() or pathlike:
        what = "is a file, not a folder" if path.is_file() else "there is no such folder"
        raise UserError(
            f"{kind.name} {model!r}: {what}; give a folder with config.json, weights and {kind.part}, "
            f"or a hub name such as {kind.example}"
        )
    return False


def fault(folder: Path, kind: Kind = TEACHER, *, weights: bool = True, part: bool = True) -> tuple[str, str] | None:
    """What keeps a model's folder from being loaded, and what mends it; None where nothing does.

    Args:
        folder: the folder; its weights are not read.
        kind: what the model is for.
        weights: whether the weights are needed.
        part: whether the rest is needed, beside config.json.
    """
    if (folder / "adapter_config.json").is_file():
        return (
            "the folder holds an adapter (LoRA or another of PEFT's), not a whole model",
            "merge it first: peft's merge_and_unload(), then save_pretrained of model and tokenizer into a folder",
        )
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if weights and not _files(folder, _WEIGHTS):
        missing.append("weights (model.safetensors or pytorch_model.bin)")
    if part and not _files(folder, kind.patterns):
        missing.append(kind.part)
    if missing:
        return (
            f"the folder lacks {' and '.join(missing)}",
            "download the model again or save it there with save_pretrained",
        )
    for path in _files(folder, ("*.json", *_WEIGHTS, *kind.patterns)):
        with path.open("rb") as handle:
            if handle.read(len(_LFS)) == _LFS:
                return f"{path.name} is an LFS pointer, not the file itself", f"git -C {folder} lfs pull"
        if path.suffix == ".safetensors" and not _is_whole(path):
            return f"{path.name} is damaged or cut short ({path.stat().st_size} bytes)", "download the model again"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        return f"config.json is no JSON ({error})", "download the model again"
    if not isinstance(config, dict):
        return "config.json is no JSON object", "download the model again"
    if "auto_map" in config:
        return (
            "its config.json names code of its own (auto_map), which is never run here",
            f"take a model of an architecture that transformers itself knows, such as {kind.example}",
        )
    return None


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as the places of its tensors say."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= size - 8:
            return False
        try:
            places = json.loads(handle.read(length))
            end = max((entry["data_offsets"][1] for key, entry in places.items() if key != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return False
    return size == 8 + length + end


def _names_code(folder: Path) -> bool:
    """Whether the settings beside config.json name code of the folder's own."""
    settings = _files(folder, ("tokenizer_config.json", "preprocessor_config.json"))
    return any('"auto_map"' in path.read_text(encoding="utf-8", errors="replace") for path in settings)


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' load reports and progress bars out of the user's log: we check and report ourselves."""
    from transformers.utils import logging as hf_logging

    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def from_pretrained(auto_class: Any, model: str, kind: Kind = TEACHER, **options: Any) -> Any:
    """``auto_class.from_pretrained(model)`` for a folder (no network) or a hub name, with mendable errors.

    Code that a model brings along is never run.

    Args:
        auto_class: transformers' AutoConfig, AutoTokenizer, AutoFeatureExtractor, AutoModel, …
        model: folder or hub name.
        kind: what the model is for.
        options: passed on.

    Raises:
        UserError: the folder is incomplete or unreadable, or the hub cannot provide the name. A TypeError or an
            AttributeError says that code and transformers don't fit, which no user's file can mend: it comes through.
    """
    local = is_folder(model, kind)
    name = str(Path(model).expanduser()) if local else model
    if local:
        asked = auto_class.__name__
        found = fault(Path(name), kind, weights="Model" in asked, part="Config" not in asked)
        if found:
            raise UserError(f"{kind.name} {model!r}: {'; '.join(found)}")
    try:
        with quiet_transformers():
            return auto_class.from_pretrained(name, local_files_only=local, trust_remote_code=False, **options)
    except (TypeError, AttributeError):
        raise
    except Exception as error:  # safetensors, tokenizers and json raise a dozen unrelated types for a broken file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        # older transformers (4.30) don't say so of a tokenizer class that they don't know
        if "trust_remote_code" in str(error) or (local and _names_code(Path(name))):
            what = f"it needs code of its own, which is never run here; take another, such as {kind.example}"
        elif local:
            what = f"{auto_class.__name__} cannot load the folder ({reason}); download the model again"
        else:
            what = (
                f"no folder of this name, and the Hugging Face hub did not provide it ({reason}); "
                "check the name, the connection and HF_HUB_OFFLINE, or give a folder"
            )
        raise UserError(f"{kind.name} {model!r}: {what}") from error


def check_complete(model: str, kind: Kind, report: dict[str, Any], unused: Callable[[str], bool]) -> None:
    """Raise a ``UserError`` where the weights did not fill the model.

    Args:
        model: folder or hub name.
        kind: what it is for.
        report: what transformers gives with ``output_loading_info``.
        unused: tells of a tensor's name that nothing here uses it.
    """
    missing = sorted(name for name in report["missing_keys"] if not unused(name))
    lost = [*missing, *sorted(map(str, report["mismatched_keys"]))]
    if lost:
        raise UserError(
            f"{kind.name} {model!r}: {len(lost)} tensors are missing from the weights or of another shape "
            f"(first: {lost[0]}); config.json and the weights must belong together: download the model again"
        )


def load_config(model: str) -> Any:
    """The model's configuration (no weights are read)."""
    from transformers import AutoConfig

    return from_pretrained(AutoConfig, model)


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer."""
    from transformers import AutoTokenizer

    return from_pretrained(AutoTokenizer, model)


def load_encoder(model: str) -> "torch.nn.Module":
    """The model's text encoder, frozen, in evaluation mode, on the CPU, in its stored precision.

    Of an encoder-decoder (T5, BART) the encoder is taken, of a language model (Qwen) everything below its head. The
    global random state is left as it was, so that a training run draws the same numbers with and without a teacher.

    Raises:
        UserError: besides `from_pretrained`'s: the weights do not fill the encoder, or it does not read text.
    """
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        encoder, report = from_pretrained(AutoModel, model, output_loading_info=True)
    if getattr(encoder.config, "is_encoder_decoder", False):
        encoder = encoder.get_encoder()
    if getattr(encoder, "main_input_name", "input_ids") != "input_ids":
        raise UserError(f"teacher {model!r}: reads {encoder.main_input_name}, not text; give a text encoder (BERT …)")
    # A masked-LM checkpoint has no pooler, and nothing here uses one; "decoder." went with get_encoder.
    check_complete(model, TEACHER, report, lambda name: "pooler" in name or name.startswith("decoder."))
    encoder.config.use_cache = False  # decoders would keep keys and values of a text that never goes on
    return encoder.eval().requires_grad_(False)


def model_digest(model: str) -> str:
    """A digest of everything that decides the features: the folder's files, or hub name and revision."""
    digest = hashlib.sha256()
    if not is_folder(model):
        digest.update(f"{model}@{getattr(load_config(model), '_commit_hash', None)}".encode())
        return digest.hexdigest()
    folder = Path(model).expanduser()
    for path in sorted({p for pattern in _HASHED for p in folder.glob(pattern)}):
        digest.update(path.name.encode())
        digest.update(sha256(path))
    return digest.hexdigest()

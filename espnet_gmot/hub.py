"""Find and load a Hugging Face text encoder; whatever the user can mend ends in a ``UserError`` that says how.

A folder never causes network access; a hub name goes through huggingface_hub, which obeys HF_HUB_OFFLINE and HF_HOME.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from espnet_gmot.errors import UserError
from espnet_gmot.files import sha256

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_VOCABULARIES = ("vocab.txt", "tokenizer.json", "vocab.json", "*.model", "*.spm", "*.bpe.model")
_HASHED = ("config.json", "tokenizer_config.json", *_VOCABULARIES, *_WEIGHTS)


def check_device(device: str) -> None:
    """Raise a ``UserError`` unless torch can compute on ``device`` here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: not usable here ({str(error).splitlines()[0]}); use cpu") from error


def is_folder(model: str) -> bool:
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
            f"teacher {model!r}: {what}; give a folder with config.json, weights and vocabulary, "
            "or a hub name such as bert-base-chinese"
        )
    return False


def _has(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def check_folder(folder: Path, *, weights: bool = True) -> None:
    """Raise a ``UserError`` unless ``folder`` holds config.json, a vocabulary and (if ``weights``) weights."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if weights and not _has(folder, _WEIGHTS):
        missing.append("weights (model.safetensors or pytorch_model.bin)")
    if not _has(folder, _VOCABULARIES):
        missing.append("a vocabulary (vocab.txt, tokenizer.json or *.model)")
    if missing:
        raise UserError(
            f"teacher {str(folder)!r}: the folder lacks {' and '.join(missing)}; "
            "download the model again or save it there with save_pretrained (model and tokenizer)"
        )


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


def from_pretrained(auto_class: Any, model: str, **options: Any) -> Any:
    """``auto_class.from_pretrained(model)`` for a folder (no network) or a hub name, with mendable errors.

    Args:
        auto_class: transformers' AutoConfig, AutoTokenizer, AutoModel, …
        model: folder or hub name.
        options: passed on.

    Raises:
        UserError: the folder is incomplete or unreadable, or the hub cannot provide the name.
    """
    local = is_folder(model)
    name = str(Path(model).expanduser()) if local else model
    if local:
        check_folder(Path(name), weights="Model" in auto_class.__name__)
    try:
        with quiet_transformers():
            return auto_class.from_pretrained(name, local_files_only=local, **options)
    except Exception as error:  # safetensors, tokenizers and json raise a dozen unrelated types for a broken file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if local:
            raise UserError(f"teacher {model!r}: {auto_class.__name__} cannot load the folder ({reason})") from error
        raise UserError(
            f"teacher {model!r}: no folder of this name, and the Hugging Face hub did not provide it ({reason}); "
            "check the name, the connection and HF_HUB_OFFLINE, or give a folder"
        ) from error


def load_config(model: str) -> Any:
    """The model's configuration (no weights are read)."""
    from transformers import AutoConfig

    return from_pretrained(AutoConfig, model)


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer."""
    from transformers import AutoTokenizer

    return from_pretrained(AutoTokenizer, model)


def load_encoder(model: str) -> torch.nn.Module:
    """The model's text encoder, frozen, in evaluation mode, on the CPU, in its stored precision.

    Of an encoder-decoder (T5, BART) the encoder is taken, of a language model (Qwen) everything below its head. The
    global random state is left as it was, so that a training run draws the same numbers with and without a teacher.

    Raises:
        UserError: besides `from_pretrained`'s: the weights do not fill the encoder, or it does not read text.
    """
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        encoder, report = from_pretrained(AutoModel, model, output_loading_info=True)
    if getattr(encoder.config, "is_encoder_decoder", False):
        encoder = encoder.get_encoder()
    if getattr(encoder, "main_input_name", "input_ids") != "input_ids":
        raise UserError(f"teacher {model!r}: reads {encoder.main_input_name}, not text; give a text encoder (BERT …)")
    # A masked-LM checkpoint has no pooler, and nothing here uses one; "decoder." went with get_encoder.
    missing = sorted(k for k in report["missing_keys"] if "pooler" not in k and not k.startswith("decoder."))
    if missing or report["mismatched_keys"]:
        first = missing[0] if missing else sorted(map(str, report["mismatched_keys"]))[0]
        count = len(missing) + len(report["mismatched_keys"])
        raise UserError(
            f"teacher {model!r}: {count} tensors of the encoder are missing from the weights or of another shape "
            f"(first: {first}); config.json and the weights must belong together"
        )
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

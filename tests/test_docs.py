"""The documentation's Python snippets run."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page.relative_to(ROOT).as_posix() for folder in (".", "docs", "conf") for page in (ROOT / folder).glob("*.md")
)
SNIPPETS = [
    pytest.param(page, code, id=f"{page}:{number}", marks=[pytest.mark.espnet] if "espnet2" in code else [])
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"^ *```(?:python|py)\b[^\n]*\n(.*?)^ *```", (ROOT / page).read_text("utf8"), re.M | re.S)
    )
]


def readme(_: pytest.MonkeyPatch) -> dict[str, Any]:
    """Features and lengths, as the text around the snippet names them."""
    h, z = torch.randn(2, 9, 4, requires_grad=True), torch.randn(2, 5, 4, requires_grad=True)
    return {"h": h, "z": z, "frames": torch.tensor([9, 7]), "tokens": torch.tensor([5, 3])}


def export(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """ESPnet's own names, their calls bound to their signatures: there is no packed model here."""
    from espnet2.bin import asr_inference
    from espnet2.main_funcs import pack_funcs

    def checked(function: Callable, result: Any) -> Callable:
        signature = inspect.signature(function)

        def call(*args: Any, **kwargs: Any) -> Any:
            signature.bind(*args, **kwargs)
            return result

        return call

    files = {"asr_train_config": "config.yaml", "asr_model_file": "model.pth"}
    monkeypatch.setattr(pack_funcs, "unpack", checked(pack_funcs.unpack, files))
    monkeypatch.setattr(asr_inference, "Speech2Text", checked(asr_inference.Speech2Text, object()))
    return {}


def deploy(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The parts of an ESPnet model that the exported one is made of; the exporter runs it, for onnx isn't installed."""

    class Encoder(torch.nn.Linear):
        def forward(self, feats: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
            return super().forward(feats), lengths, None

    class CTC(torch.nn.Linear):
        def log_softmax(self, encoded: torch.Tensor) -> torch.Tensor:
            return self(encoded).log_softmax(2)

    def exported(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: str, **options: Any) -> None:
        original.bind(model, inputs, path, **options)
        log_probs, lengths = model(*inputs)
        assert log_probs.shape == (1, 9, 5) and lengths.tolist() == [9] and not model.training

    original = inspect.signature(torch.onnx.export)
    monkeypatch.setattr(torch.onnx, "export", exported)
    parts = {"normalize": None, "encoder": Encoder(4, 3), "ctc": CTC(3, 5), "_extract_feats": lambda s, n: (s, n)}
    return {"asr_model": SimpleNamespace(**parts), "speech": torch.randn(1, 9, 4), "speech_lengths": torch.tensor([9])}


#: What a page's snippets find: names, or names that stand for what only a user has.
PREPARED: dict[str, Callable[[pytest.MonkeyPatch], dict[str, Any]]] = {
    "README.md": readme,
    "docs/export.md": export,
    "docs/howto_deploy.md": deploy,
}


def test_there_are_snippets() -> None:
    assert {"README.md", "docs/transport.md", "docs/export.md"} <= {snippet.values[0] for snippet in SNIPPETS}


@pytest.mark.parametrize(("page", "code"), SNIPPETS)
def test_a_snippet_runs(page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "espnet2" in code:
        pytest.importorskip("espnet2")
    monkeypatch.chdir(tmp_path)
    names = PREPARED.get(page, lambda _: {})(monkeypatch)
    exec(compile(inspect.cleandoc(code), page, "exec"), names)
    if page == "README.md":
        assert all(names[name].grad.isfinite().all() for name in "hz")


def test_every_page_has_a_next_step() -> None:
    """A link after "Next:"; the home page is nothing but next steps. That none is an orphan, mkdocs checks."""
    pages = sorted(set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/index.md"})
    assert len(pages) > 25
    assert [str(page) for page in pages if not re.search(r"\bNext: .*\[", page.read_text(encoding="utf8"))] == []

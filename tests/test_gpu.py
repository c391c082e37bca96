"""On a GPU as on the CPU: the loss and its gradient, training, decoding, teachers and frontends. Skips without one."""

from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import pytest
import soundfile
import torch

from espnet_gmot.config import GMOTConfig
from espnet_gmot.loss import GMOTLoss
from tests.hosts.conftest import tiny_plm  # noqa: F401 - a fixture

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

PRESETS = ["ot", "tot", "uot", "gmot", "gmot-t", "gmot-u", "kd-att", "kd-cif"]
#: Once each: what changes how the loss is computed, not how much of it counts.
OPTIONS: dict[str, dict[str, Any]] = {
    **{preset: {"preset": preset} for preset in PRESETS},
    "pooled": {"pool": 2},
    "band": {"prior": "band"},
    "mirror": {"method": "mirror", "epsilon": 0.3},
    "implicit": {"method": "mirror", "epsilon": 0.3, "plan_gradient": "implicit", "tolerance": 1e-4},
    "mix": {"teacher_mix": True, "teacher_layer": [1, 2]},
}


def loss_on(device: str, options: dict[str, Any]) -> tuple[GMOTLoss, list[torch.Tensor]]:
    """A loss in training mode and its batch: 8 utterances of up to 60 frames, 12 tokens."""
    torch.manual_seed(1)
    module = GMOTLoss(GMOTConfig.from_dict({"teacher_width": 24, "backend": "torch", **options}), 32).train()
    drawn = torch.Generator().manual_seed(2)
    lengths, tokens = torch.arange(25, 65, 5), torch.arange(5, 13)
    features = torch.randn(8, 60, 32, generator=drawn) * (torch.arange(60) < lengths[:, None])[..., None]
    teacher = torch.randn(8, 12, 24, generator=drawn) * (torch.arange(12) < tokens[:, None])[..., None]
    args = [features, lengths, teacher, tokens]
    return module.to(device), [tensor.to(device) for tensor in args]


@pytest.mark.parametrize("name", OPTIONS)
def test_loss_and_gradient(name: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        module, (features, *others) = loss_on(device, OPTIONS[name])
        features.requires_grad_()
        loss, stats = module(features, *others)
        loss.backward()
        found.append((loss, stats, features.grad, [p.grad for p in module.parameters()]))
    (loss, stats, gradient, parameters), there = found
    torch.testing.assert_close(there[0].cpu(), loss, atol=1e-4, rtol=1e-4)
    assert there[1].keys() == stats.keys()
    for part in stats.keys() - {"iterations"}:
        torch.testing.assert_close(there[1][part].cpu().float(), stats[part].float(), atol=2e-3, rtol=1e-2)
    assert (there[2].cpu() - gradient).norm() < 1e-2 * gradient.norm()
    for ours, theirs in zip(parameters, there[3], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert (theirs.cpu() - ours).norm() <= 1e-2 * ours.norm() + 1e-5


@pytest.mark.parametrize("name", [*PRESETS, "pooled", "band", "mix"])
def test_no_step_of_the_loss_waits_for_the_device(name: str) -> None:
    """Forward and backward, but for the solver's look at earlier steps, which its own test has."""
    module, args = loss_on("cuda", OPTIONS[name])
    module(*args)[0].backward()  # libraries and graphs set themselves up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        module(*args)[0].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_the_transfer_in_full_precision(precision: torch.dtype) -> None:
    module, args = loss_on("cuda", {"preset": "gmot"})
    full, _ = module.eval()(*args)
    with torch.autocast("cuda", precision):
        half, _ = module(*args)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=1e-6, rtol=1e-6)


@pytest.mark.espnet
class TestTraining:
    """Through the launcher, by ESPnet's own trainer."""

    @pytest.fixture(scope="class")
    def training(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        pytest.importorskip("espnet2")
        from tests.hosts.training import Training

        return Training(tmp_path_factory.mktemp("gpu"))

    @pytest.mark.parametrize("case", ["ctc", "hybrid"])
    @pytest.mark.parametrize("amp", [False, True], ids=["full", "amp"])
    def test_learns_and_decodes_as_on_the_cpu(self, training: Any, tiny_plm: Path, case: str, amp: bool) -> None:  # noqa: F811
        """The hybrid's teacher runs beside it, the CTC's is an archive."""
        from tests.hosts.test_lifecycle import CASES, GMOT, decoding, finished, hypotheses

        curves = []
        for device, ngpu in (("cpu", 0), ("cuda", 1)):
            name = f"{case}{'_amp' if amp else ''}_{device}"
            gmot = {**GMOT, **({"teacher": str(tiny_plm), "teacher_layer": 1} if case == "hybrid" else {})}
            config = {**CASES[case], "max_epoch": 2, "use_amp": amp and device == "cuda"}
            config["model_conf"] = {**config["model_conf"], "gmot_conf": gmot}
            words = training.options(name, config, ngpu=ngpu, archive=case != "hybrid")
            commands = [["-m", "espnet2.bin.asr_train", *words]]
            if device == "cuda":
                commands.append(decoding(training, name, "feats.scp,speech,kaldi_ark", ngpu))
            finished(training, commands)
            curves.append(training.curve(name))
        assert hypotheses(training, name) == 7
        on_cpu, on_gpu = curves
        assert on_cpu.keys() == on_gpu.keys() == {1, 2}
        for part in ("train loss", "train loss_gmot", "valid loss", "valid loss_gmot"):
            assert on_gpu[1][part] == pytest.approx(on_cpu[1][part], rel=0.05 if amp else 0.01), part

    def test_goes_on_on_the_other_device(self, training: Any) -> None:
        """A training begun on a GPU ends on a CPU, and the other way round."""
        from tests.hosts.test_lifecycle import CASES, finished

        for first, then in ((0, 1), (1, 0)):
            name = f"moved_from_{first}"
            for epochs, ngpu in ((1, first), (2, then)):
                words = training.options(name, {**CASES["ctc"], "max_epoch": epochs}, ngpu=ngpu)
                finished(training, [["-m", "espnet2.bin.asr_train", *words]])
            assert training.curve(name).keys() == {1, 2}


def test_teacher_archives(tiny_plm: Path, tmp_path: Path) -> None:  # noqa: F811
    from espnet_gmot.teacher import dump

    (tmp_path / "text").write_text("a 今天气很好\nb 我们去\n", encoding="utf-8")
    found = []
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        words = ["--model", str(tiny_plm), "--text", str(tmp_path / "text"), "--out", str(out), "--device", device]
        assert dump.main(words) == 0
        found.append(kaldiio.load_scp(str(out / "teacher.scp")))
    for key in ("a", "b"):
        np.testing.assert_allclose(found[1][key], found[0][key], atol=1e-4)


def test_a_teacher_is_trained(tmp_path: Path) -> None:
    from espnet_gmot.teacher import PLMTeacher, pretrain

    (tmp_path / "text").write_text("".join(c * n + "\n" for c in "书电苹大车" for n in range(4, 20)), encoding="utf-8")
    words = ["--text", str(tmp_path / "text"), "--out", str(tmp_path / "plm"), "--layers", "1", "--width", "32"]
    words += ["--heads", "2", "--batch_size", "16", "--lr", "1e-2", "--steps", "30", "--device", "cuda"]
    assert pretrain.main(words) == 0
    features, _ = PLMTeacher(str(tmp_path / "plm"))(["书电"])  # on the CPU again
    assert features.shape == (1, 2, 32)


@pytest.mark.espnet
def test_frontend_archives(tmp_path: Path) -> None:
    pytest.importorskip("espnet2")
    from espnet_gmot.speech import dump
    from tests.hosts.test_frontend import tiny

    model, drawn = tiny("whisper", tmp_path / "model"), np.random.default_rng(0)
    for name, samples in (("a", 3000), ("b", 1700)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * drawn.standard_normal(samples), 16000)
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/a.wav\nb {tmp_path}/b.wav\n")
    found = []
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        words = ["--model", model, "--wav_scp", str(tmp_path / "wav.scp"), "--out", str(out), "--device", device]
        assert dump.main(words) == 0
        found.append(kaldiio.load_scp(str(out / "feats.scp")))
    for key in ("a", "b"):
        np.testing.assert_allclose(found[1][key], found[0][key], atol=1e-3)

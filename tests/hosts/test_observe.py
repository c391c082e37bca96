"""The plan in sight: among ESPnet's attention plots while training, and `align` on the trained experiment."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.graph import Graph
from espnet_gmot.loss import GMOTLoss
from espnet_gmot.report import align_cli
from espnet_gmot.report.measure import read_scores
from tests.hosts.training import Training

pytestmark = pytest.mark.espnet
GMOT = {"teacher_width": 12, "backend": "torch"}
FRONTEND = {"input_size": None, "frontend": "default", "frontend_conf": {"n_fft": 256, "hop_length": 128, "n_mels": 8}}


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """One training with attention plots: two taps, so two plans."""
    training = Training(tmp_path_factory.mktemp("observed"))
    conf = {**GMOT, "tap": ["encoder.0", "encoder"], "teacher_layer": [1, 2]}
    model_conf = {"ctc_weight": 1.0, "gmot_conf": conf}
    assert training.run("asr", {"model_conf": model_conf}, num_att_plot=2, use_matplotlib=True, max_epoch=1) == [0]
    return training


def test_the_plan_is_among_espnets_attention_plots(training: Training) -> None:
    pictures = {path.name for path in (training.folder / "asr" / "att_ws" / "utterance00").glob("*.png")}
    plans = {f"gmot.losses.{index}.coupling.1ep.png" for index in range(2)}
    assert plans < pictures and len(pictures) > 2  # beside those of the encoder's own attention


def test_what_is_plotted_is_the_plan(build: Callable, batch: dict) -> None:
    from espnet2.main_funcs.calculate_all_attentions import calculate_all_attentions

    model = build("hybrid", gmot_conf=dict(GMOT))
    plans: list[torch.Tensor] = []
    handle = model.gmot.coupling.register_forward_hook(lambda module, inputs, plan: plans.append(plan))
    shown = calculate_all_attentions(model.eval(), batch)["gmot.coupling"]
    handle.remove()
    assert [plan.shape for plan in shown] == [(1, 4, 20), (1, 3, 15)]
    for picture, plan in zip(shown, plans, strict=True):
        torch.testing.assert_close(picture[0], plan[0].T)
        torch.testing.assert_close(picture.sum(), torch.tensor(1.0))


def test_training_keeps_no_plan(build: Callable, batch: dict) -> None:
    model = build(gmot_conf=dict(GMOT)).train()
    model(**batch)
    assert not hasattr(model.gmot.coupling, "attn")


def test_align_writes_pictures_and_times_of_an_archived_teacher(training: Training, tmp_path: Path) -> None:
    from PIL import Image

    words = [f"{training.folder}/asr", "--set", f"{training.folder}/valid", "--utt", "utterance00", "utterance01"]
    with pytest.raises(UserError, match="give --frame_shift SECONDS"):
        align_cli.main([*words, "--out", str(tmp_path)])
    assert align_cli.main([*words, "--out", str(tmp_path), "--frame_shift", "0.05"]) == 0
    names = {f"{utterance}{end}" for utterance in ("utterance00", "utterance01") for end in _ENDS}
    assert {path.name for path in tmp_path.iterdir()} == names
    found = json.loads((tmp_path / "utterance00.json").read_text())
    text = dict(line.split() for line in (training.folder / "valid" / "text").read_text().splitlines())["utterance00"]
    assert found["seconds"] == pytest.approx(24 * 0.05) and found["tiers"].keys() == {
        "plan.encoder.0",
        "plan.encoder",
        "ctc",
    }
    for spans in found["tiers"].values():
        assert [span["token"] for span in spans] == list(text)
        assert all(0 <= span["start"] < span["end"] <= found["seconds"] + 1e-9 for span in spans)
    assert found["stats"]["loss_wd"] > 0
    with Image.open(tmp_path / "utterance00.encoder.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10  # something is drawn


_ENDS = (".encoder.0.png", ".encoder.png", ".TextGrid", ".ctm", ".json")


def test_align_hears_a_recording_with_an_online_teacher(
    build: Callable, tiny_plm: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import soundfile

    model = build(gmot_conf={"teacher": str(tiny_plm), "backend": "torch"}, token_type="char", **FRONTEND)
    streams = [["dump/wav.scp", "speech", "sound"], ["dump/text", "text", "text"]]
    config = vars(model.args) | {
        "train_data_path_and_name_and_type": streams,
        "valid_data_path_and_name_and_type": streams,
    }
    exp = tmp_path / "exp"
    exp.mkdir()
    (exp / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    words = [str(exp), "--wav", str(tmp_path / "a.wav"), "--text", "今天好", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="train it first"):
        align_cli.main(words)
    torch.save(model.state_dict(), exp / "valid.cer_ctc.ave.pth")
    with pytest.raises(UserError, match=r"a.wav: no such file"):
        align_cli.main(words)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(1).standard_normal(8000) * 0.1, 16000)
    truth = tmp_path / "true.ctm"
    times = zip((0.1, 0.2, 0.3), "今天好", strict=True)
    truth.write_text("".join(f"a 1 {start} 0.1 {token} 1\n" for start, token in times))
    assert align_cli.main([*words, "--truth", str(truth)]) == 0
    assert str(tmp_path / "out" / "a.png") in capsys.readouterr().out
    tiers = json.loads((tmp_path / "out" / "a.json").read_text())["tiers"]
    assert tiers.keys() == {"plan", "ctc", "truth"} and tiers["truth"][1]["centre"] == pytest.approx(0.25)
    grid = (tmp_path / "out" / "a.TextGrid").read_text()
    assert grid.count('class = "IntervalTier"') == 3 and "xmax = 0.500000" in grid


def test_alignments_are_measured_against_true_times(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Every character of the corpus has four frames, so its true times are known."""
    valid = training.folder / "valid"
    texts = dict(line.split() for line in (valid / "text").read_text().splitlines())
    lines = [f"{k} 1 {0.2 * j} 0.2 {token} 1\n" for k, text in texts.items() for j, token in enumerate(text)]
    (tmp_path / "true.ctm").write_text("".join(lines))
    words = [
        f"{training.folder}/asr",
        "--set",
        str(valid),
        "--measure",
        "--frame_shift",
        "0.05",
        "--out",
        str(tmp_path),
    ]
    with pytest.raises(UserError, match="--measure needs --set DIR and --truth"):
        align_cli.main(words)
    words += ["--truth", str(tmp_path / "true.ctm"), "--preset", "ot", "gmot-t", "--max_utts", "3"]
    assert align_cli.main([*words, "--asr_model_file", "1epoch.pth", "latest.pth"]) == 0
    assert "error ms" in capsys.readouterr().out
    scores = read_scores(tmp_path / "alignment.csv")
    names = [f"{name}@{place}" for place in ("encoder.0", "encoder") for name in ("plan", "ot", "gmot-t")]
    assert [s.aligner for s in scores] == [*names, "ctc"] * 2 and scores[0].model_file == "1epoch.pth"
    assert {s.utterances for s in scores} == {3}
    by_name = {s.aligner: s for s in scores}
    assert by_name["gmot-t@encoder"].error_ms < by_name["ot@encoder"].error_ms  # the prior knows the order
    by_peer = [word for word in words if word not in ("--truth", str(tmp_path / "true.ctm"))]
    peer = f"{training.folder}/asr"
    with pytest.raises(UserError, match="--truth tells the times already"):
        align_cli.main([*words, "--truth_exp", peer])
    assert align_cli.main([f"{training.folder}/../{training.folder.name}/asr", *by_peer, "--truth_exp", peer]) == 0
    scores = read_scores(tmp_path / "alignment.csv")  # of two experiments, against one of them
    assert [s.aligner for s in scores] == [*names, "ctc"] * 2 and scores[0].experiment != scores[-1].experiment
    assert scores[-1].error_ms == 0.0 and scores[-1].inside == pytest.approx(1.0)
    with pytest.raises(UserError, match=r"one experiment at a time; several need --measure"):
        align_cli.main([peer, peer, "--set", str(valid), "--utt", "utterance00"])
    (tmp_path / "true.ctm").write_text(lines[0])
    with pytest.raises(UserError, match="utterance00 has 1 tokens there, but 6 in the plan"):
        align_cli.main(words)


def test_another_presets_plan_has_that_presets_frame_weights() -> None:
    from espnet_gmot.hosts.observe import Coupled

    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([8]), torch.tensor([3])
    frames, tokens = (torch.randn(1, int(size), 12, generator=generator) for size in lengths)
    weights = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]])
    loss = GMOTLoss(GMOTConfig.from_dict({**GMOT, "preset": "gmot-t", "frame_weights": "blank"}), 12)
    coupled = Coupled("encoder", loss, Graph(frames, lengths[0], weights), Graph(tokens, lengths[1]), np.zeros((8, 3)))
    np.testing.assert_allclose(coupled.coupled_by(0.3).sum(1), weights[0] / 3, atol=1e-4)
    np.testing.assert_allclose(coupled.coupled_as(preset="gmot-t").sum(1), np.full(8, 1 / 8), atol=1e-4)


def test_any_presets_transport_is_that_of_one_graph() -> None:
    """hcsa's three layers belong to three taps, and its transport is that of ot, whatever the teacher's width."""
    from espnet_gmot.hosts.observe import Coupled

    generator = torch.Generator().manual_seed(1)
    acoustic, linguistic = (Graph(torch.randn(1, n, 8, generator=generator), torch.tensor([n])) for n in (6, 3))
    loss = GMOTLoss(GMOTConfig.from_dict({"teacher_width": 8, "backend": "torch"}), 8)
    coupled = Coupled("encoder", loss, acoustic, linguistic, np.zeros((6, 3)))
    np.testing.assert_allclose(coupled.coupled_as("hcsa"), coupled.coupled_as("ot"))


@pytest.mark.parametrize("moved", [False, True])
def test_an_online_teacher_reads_as_in_training_wherever_it_is(
    training: Training, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    from espnet_gmot.hosts.observe import Observer
    from espnet_gmot.teacher import plm

    asked: dict = {}
    monkeypatch.setattr(plm, "PLMTeacher", lambda name, **how: asked.update(how, name=name) or (lambda texts: texts))
    observer = Observer(training.folder / "asr", teacher="elsewhere" if moved else None)
    how = {"special_tokens": True, "teacher_stats": "train/teacher", "teacher_layer": 3}
    observer.model.gmot_config = GMOTConfig.from_dict({**GMOT, **how, "teacher": "there"})
    assert observer._ask("今") == "今"
    expected = {"layer": 3, "special_tokens": True, "stats": "train/teacher"}
    assert asked == {"name": "elsewhere" if moved else "there", **expected}


def test_training_that_went_on_from_a_model_began_there(
    training: Training, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from espnet_gmot.hosts.observe import Observer
    from espnet_gmot.report.couplings import observe

    first = tmp_path / "first.pth"
    torch.save({key: value + 0.5 for key, value in training.checkpoint("asr")["model"].items()}, first)
    exp = tmp_path / "asr"
    exp.mkdir()
    config = yaml.safe_load((training.folder / "asr" / "config.yaml").read_text(encoding="utf-8"))
    for stream in ("valid_data_path_and_name_and_type", "train_data_path_and_name_and_type"):
        config[stream] = [[str(training.folder / path), *kind] for path, *kind in config[stream]]
    (exp / "config.yaml").write_text(yaml.safe_dump({**config, "init_param": [f"{first}:ctc:ctc"]}))
    torch.save(training.checkpoint("asr")["model"], exp / "latest.pth")
    began, trained = (Observer(exp, initial=initial).model.ctc.ctc_lo.weight for initial in (True, False))
    torch.testing.assert_close(began, trained + 0.5)
    first.unlink()
    shown = observe("gmot", exp, training.folder / "valid", ["utterance00"], {}, frame_shift=0.05)
    assert [each.before for each in shown] == [None, None] and "first.pth, which isn't there" in caplog.text


def test_align_says_which_recording_it_wants() -> None:
    for words in (["exp"], ["exp", "--wav", "a.wav"], ["exp", "--set", "dev"], ["exp", "--utt", "a"]):
        with pytest.raises(UserError, match="--wav FILE --text TRANSCRIPT or --set DIR --utt NAME"):
            align_cli.main(words)
    with pytest.raises(UserError, match=r"no config.yaml"):
        align_cli.main(["nowhere", "--wav", "a.wav", "--text", "你"])


def test_the_page_observes_before_and_after_training(training: Training, tmp_path: Path) -> None:
    """Couplings at every alpha, and edges that training has changed for the frames alone."""
    from espnet_gmot.report.couplings import ALPHAS, observe

    first, second = observe(
        "gmot", training.folder / "asr", training.folder / "valid", ["utterance00"], {}, frame_shift=0.05
    )
    assert (first.system, second.system) == ("gmot, encoder.0", "gmot, encoder")
    for seen in (first, second):
        assert list(seen.by_alpha) == list(ALPHAS) and len({plan.tobytes() for plan in seen.by_alpha.values()}) > 1
        np.testing.assert_allclose(seen.by_alpha[0.5], seen.plan, atol=1e-6)
        assert seen.edges[0].shape == (24, 24) and seen.edges[1].shape == (6, 6)
        assert np.abs(seen.edges[0] - seen.before[0]).max() > 0.01
        np.testing.assert_allclose(seen.edges[1], seen.before[1], atol=1e-6)


def test_the_notebook_looks_inside_a_trained_model(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the demo's folder; pictures are drawn and not shown."""
    for name, target in (("exp/asr_demo_gmot", "asr"), ("dump/raw/dev", "valid")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(training.folder / target)
    monkeypatch.setenv("GMOT_DEMO", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)  # the notebook goes there
    found = runpy.run_path(str(Path(__file__).parents[2] / "examples/notebooks/demo_model.py"))
    assert [plan.shape for plan in found["plans"]] == [found["coupled"].plan.shape] * 5
    assert all(-1.0 <= alike <= 1.0 for alike in found["alike"].values()) and len(found["alike"]) == 2
    assert len({round(alike, 6) for alike in found["alike"].values()}) == 2  # training has changed the frames


def test_espnet_averages_no_more_models_than_there_are(tmp_path: Path) -> None:
    """What run_dose.sh --keep_epochs relies on: every epoch kept, the best three averaged and linked."""
    from espnet2.main_funcs.average_nbest_models import average_nbest_models
    from espnet2.train.reporter import Reporter

    reporter = Reporter()
    for epoch, weight in enumerate((10.0, 100.0, 1000.0, 10000.0), 1):
        torch.save({"w": torch.tensor(weight)}, tmp_path / f"{epoch}epoch.pth")
        reporter.set_epoch(epoch)
        with reporter.observe("valid") as observed:
            observed.register({"cer_ctc": epoch / 10})
            observed.next()
    average_nbest_models(tmp_path, reporter, [("valid", "cer_ctc", "min")], [3, 8])
    found = torch.load(tmp_path / "valid.cer_ctc.ave.pth", weights_only=True)["w"]
    assert float(found) == pytest.approx(370.0)
    assert (tmp_path / "valid.cer_ctc.ave.pth").resolve().name == "valid.cer_ctc.ave_3best.pth"

"""A thousand training steps on real speech: how many values aren't finite? None should be.

python3 benchmarks/soak.py --data data_aishell_mini.tgz --teacher MODEL [--steps 1000] [--out docs/soak.json]

Each step is one of ESPnet's trainer's: forward, backward, gradient norm clipped, and no update where it isn't finite.
Losses, statistics, gradients, parameters and buffers are looked at in every step; torch's anomaly detection watches
each fiftieth. The systems take turns, a fresh model each.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile
import torch
import yaml

from espnet_gmot.corpora import aishell
from espnet_gmot.kaldi.tables import read_table
from espnet_gmot.teacher import PLMTeacher
from espnet_gmot.teacher.cleaning import Cleaner

PRESETS = ("gmot", "gmot-t", "gmot-u", "uot")
MODEL: dict[str, Any] = {
    "model": "gmot",
    "frontend": "default",
    "frontend_conf": {"n_fft": 512, "hop_length": 160},
    "specaug": "specaug",
    "specaug_conf": {
        "apply_time_warp": False,
        "freq_mask_width_range": [0, 16],
        "time_mask_width_range": [0, 20],
    },
    "normalize": "utterance_mvn",
    "encoder": "e_branchformer",
    "encoder_conf": {
        "output_size": 64,
        "attention_heads": 2,
        "num_blocks": 2,
        "linear_units": 64,
        "cgmlp_linear_units": 64,
        "input_layer": "conv2d",
    },
}


def build(preset: str, tokens: list[str], width: int, folder: Path, backend: str) -> torch.nn.Module:
    """A model of one system, as ESPnet builds it."""
    from espnet_gmot.hosts.register import register

    register()
    from espnet2.tasks.asr import ASRTask

    conf = {"ctc_weight": 1.0, "gmot_conf": {"preset": preset, "teacher_width": width, "backend": backend}}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**MODEL, "token_list": tokens, "model_conf": conf}, allow_unicode=True))
    torch.manual_seed(0)
    return ASRTask.build_model(ASRTask.get_parser().parse_args(["--config", str(path), "--output_dir", str(folder)]))


def batches(data: Path, model: str, tokens: list[str], size: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of utterances in random order, for ever."""
    texts, sounds = read_table(data / "text"), read_table(data / "wav.scp")
    teacher, clean, keys = PLMTeacher(model), Cleaner(), sorted(texts)
    pad = torch.nn.utils.rnn.pad_sequence
    number = {token: index for index, token in enumerate(tokens)}
    generator = torch.Generator().manual_seed(0)
    while True:
        for chosen in torch.randperm(len(keys), generator=generator).split(size):
            names = [keys[index] for index in chosen]
            speech = [torch.from_numpy(soundfile.read(sounds[name], dtype="float32")[0]) for name in names]
            text = [torch.tensor([number[character] for character in texts[name]]) for name in names]
            features, lengths = teacher([clean(texts[name]) for name in names], names)
            yield {
                "speech": pad(speech, batch_first=True),
                "speech_lengths": torch.tensor([len(wave) for wave in speech]),
                "text": pad(text, batch_first=True, padding_value=-1),
                "text_lengths": torch.tensor([len(ids) for ids in text]),
                "teacher": features,
                "teacher_lengths": lengths,
            }


def soak(model: torch.nn.Module, source: Iterator[dict[str, torch.Tensor]], steps: int) -> dict[str, Any]:
    """Train; returns what was counted."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    bad: Counter[str] = Counter()
    losses = []

    def look(kind: str, tensors: dict[str, torch.Tensor]) -> None:
        """Counts tensors that hold something not finite."""
        for name, tensor in tensors.items():
            if tensor is not None and not torch.isfinite(tensor).all():
                bad[f"{kind} {name}"] += 1

    for step in range(steps):
        with torch.autograd.set_detect_anomaly(step % 50 == 0):
            loss, stats, _ = model(**next(source))
            optimizer.zero_grad()
            loss.backward()
        look("statistic", stats)
        look("gradient", {name: parameter.grad for name, parameter in model.named_parameters()})
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        if torch.isfinite(norm):
            optimizer.step()
        else:
            bad["skipped step"] += 1
        look("state", model.state_dict())
        losses.append(float(loss.detach()))
        if step % 100 == 99:
            print(f"  step {step + 1}: loss {sum(losses[-100:]) / 100:.2f}, not finite: {dict(bad)}", flush=True)
    return {"steps": steps, "first": sum(losses[:50]) / 50, "last": sum(losses[-50:]) / 50, "not_finite": dict(bad)}


def main() -> None:
    """Print and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="corpus in AISHELL-1's form")
    parser.add_argument("--teacher", required=True, help="folder or hub name of the language model")
    parser.add_argument("--steps", type=int, default=1000, help="steps, of all systems together [1000]")
    parser.add_argument("--batch_size", type=int, default=4, help="utterances a step [4]")
    parser.add_argument("--backend", default="auto", help="of the solver, as in gmot_conf [auto]")
    parser.add_argument("--out", type=Path, help="file for the counts (JSON)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        aishell.main(["--data", str(args.data), "--out", str(folder / "data"), "--unpack_to", str(folder)])
        texts = read_table(folder / "data/train/text")
        tokens = ["<blank>", "<unk>", *sorted(set("".join(texts.values()))), "<sos/eos>"]
        source = batches(folder / "data/train", args.teacher, tokens, args.batch_size)
        found = {}
        for preset in PRESETS:
            print(preset, flush=True)
            start = time.perf_counter()
            model = build(preset, tokens, PLMTeacher(args.teacher).width, folder, args.backend)
            found[preset] = soak(model, source, args.steps // len(PRESETS))
            found[preset]["seconds"] = round(time.perf_counter() - start)
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

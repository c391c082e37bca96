"""An ESPnet training step with GM-OT against the same step without: `python3 benchmarks/training_step.py`.

The CTC-only Conformer of conf/train_asr_conformer_e12*.yaml, a batch of 16 five-second utterances of noise, 20
characters each, a cached 768-wide teacher, forward, backward and optimizer. Steps alternate with and without in one
process; the ratio is taken pair by pair and its median reported.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
TOKENS = ["<blank>", "<unk>", *(chr(0x4E00 + index) for index in range(4230)), "<sos/eos>"]  # AISHELL-1's size


def build(gmot: bool) -> torch.nn.Module:
    """The stock model or its GM-OT twin, CTC only."""
    from espnet_gmot.hosts.register import register

    register()
    from espnet2.tasks.asr import ASRTask

    name = "train_asr_conformer_e12_gmot.yaml" if gmot else "train_asr_conformer_e12.yaml"
    config: dict[str, Any] = yaml.safe_load((ROOT / "conf" / name).read_text(encoding="utf8"))
    config |= {"token_list": TOKENS, "output_dir": "unused", "normalize": "utterance_mvn", "decoder": None}
    config["model_conf"]["ctc_weight"] = 1.0
    if gmot:
        config["model_conf"]["gmot_conf"]["teacher_width"] = 768
    args = ASRTask.get_parser().parse_args([])
    for key, value in config.items():
        setattr(args, key, value)
    torch.manual_seed(0)
    return ASRTask.build_model(args).train()


def batch(gmot: bool, utterances: int, seconds: float) -> dict[str, torch.Tensor]:
    """Noise, random characters, random teacher features."""
    generator = torch.Generator().manual_seed(1)
    samples, characters = int(16_000 * seconds), 20
    data = {
        "speech": torch.randn(utterances, samples, generator=generator),
        "speech_lengths": torch.full((utterances,), samples),
        "text": torch.randint(2, len(TOKENS) - 1, (utterances, characters), generator=generator),
        "text_lengths": torch.full((utterances,), characters),
    }
    if gmot:
        data["teacher"] = torch.randn(utterances, characters, 768, generator=generator)
        data["teacher_lengths"] = torch.full((utterances,), characters)
    return data


def step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, data: dict[str, torch.Tensor], amp: bool = False
) -> float:
    """Wall seconds of one training step, with `amp` under bfloat16 autocast; a GPU is waited for."""
    device = data["speech"].device.type
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    with torch.autocast(device, torch.bfloat16, enabled=amp):
        loss, _, _ = model(**{name: tensor.clone() for name, tensor in data.items()})
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    wait()
    return time.perf_counter() - start


def main() -> None:
    """Run the pairs and print, and with --out write, their medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=7, help="counted pairs of steps")
    parser.add_argument("--utterances", type=int, default=16, help="utterances of the batch")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each, in seconds")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    origin = provenance()
    systems = {}
    for gmot in (False, True):
        model = build(gmot)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        systems[gmot] = (model, optimizer, batch(gmot, args.utterances, args.seconds))
        step(*systems[gmot])  # compiles and warms up
    pairs = []
    for number in range(args.pairs):
        pairs.append((step(*systems[False]), step(*systems[True])))
        print(f"pair {number + 1}/{args.pairs}: {pairs[-1][0]:.2f} s without, {pairs[-1][1]:.2f} s with", flush=True)
    ratios = [theirs / ours for ours, theirs in pairs]
    result = {
        **origin,
        "without_seconds": statistics.median(ours for ours, _ in pairs),
        "with_seconds": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "threads": args.threads,
    }
    print(f"with / without: {result['ratio']:.3f} (median of {args.pairs}; {min(ratios):.3f} to {max(ratios):.3f})")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

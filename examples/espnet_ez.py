"""GM-OT in ESPnet-EZ: register the plugin, say ``"model": "gmot"``, train.

    python3 examples/espnet_ez.py exp/ez [TEACHER]

TEACHER is a folder or hub name of a Chinese language model, such as bert-base-chinese; without it, fixed random vectors
stand in for one, so that the example runs offline, in a minute on a CPU. ESPnet-EZ comes with espnet 202511; it imports
all of ESPnet's tasks, so it also needs: pip install pyworld-prebuilt pypinyin asteroid_filterbanks==0.4.0 six
"""

import sys
from pathlib import Path

import numpy as np
import tones
from espnetez import ESPnetEZDataset, Trainer, get_ez_task

from espnet_gmot.hosts.register import register
from espnet_gmot.teacher.plm import PLMTeacher


def main(out: str, model: str | None = None) -> None:
    """Collect statistics and train for two epochs.

    Args:
        out: folder of the experiment.
        model: the teacher, or None.
    """
    register()  # before the configuration is read: ESPnet now knows `gmot`
    sys.argv = sys.argv[:1]  # ESPnet's defaults would read our arguments as its own
    plm = None if model is None else PLMTeacher(model)
    config = get_ez_task("asr").get_default_config() | {
        "token_list": tones.TOKENS,
        "token_type": "char",
        "frontend_conf": {"fs": tones.RATE, "n_fft": 256, "hop_length": 128, "n_mels": 24},
        "encoder": "conformer",
        "encoder_conf": {"output_size": 32, "attention_heads": 2, "linear_units": 64, "num_blocks": 2},
        "model": "gmot",
        "model_conf": {
            "ctc_weight": 1.0,
            "gmot_conf": {"preset": "gmot", "teacher_width": tones.WIDTH if plm is None else plm.width},
        },
        "allow_variable_data_keys": True,  # the stream `teacher`
        "batch_type": "unsorted",
        "batch_size": 8,
        "optim": "adam",
        "optim_conf": {"lr": 0.002},
        "max_epoch": 2,
        "num_workers": 0,
        "ngpu": 0,
        "best_model_criterion": [["valid", "cer_ctc", "min"]],
        "keep_nbest_models": 1,
        "use_matplotlib": False,
        "use_tensorboard": False,
    }
    streams = {
        "speech": tones.speech,
        "text": lambda text: np.array([tones.TOKENS.index(character) for character in text]),
        "teacher": tones.teacher if plm is None else lambda text: plm([text])[0][0].numpy(),
    }
    texts = tones.sentences(40)
    trainer = Trainer(
        task="asr",
        train_config=config,
        train_dataset=ESPnetEZDataset(texts[:32], streams),
        valid_dataset=ESPnetEZDataset(texts[32:], streams),
        output_dir=out,
        stats_dir=str(Path(out) / "stats"),
    )
    trainer.collect_stats()
    trainer.train()
    print(f"trained {out}; for stock ESPnet: python3 -m espnet_gmot export {out} --out {out}_stock")


if __name__ == "__main__":
    main(*sys.argv[1:])

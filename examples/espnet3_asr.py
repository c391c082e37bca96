"""GM-OT in ESPnet3 (espnet 202611, Python 3.12): the configuration says it all, in ``task`` and ``model``.

cd examples && python3 espnet3_asr.py --stages collect_stats train --training_config espnet3_asr.yaml
"""

from espnet3.systems.base.system import BaseSystem
from espnet3.systems.esp2_asr.system import ASRSystem
from espnet3.systems.launch import launch


class CharacterSystem(ASRSystem):
    """ESPnet3's ASR without a tokenizer to train: the tokens are characters and stand in the configuration."""

    train = BaseSystem.train


if __name__ == "__main__":
    launch(CharacterSystem, conf_package="egs3.TEMPLATE.esp2_asr")

"""The examples' data as ESPnet3 wants them: ``data_src: tones_dataset``."""

from typing import Any

import tones
from espnet3.components.data.base_dataset import BaseDataset
from espnet3.contract import Field


class Dataset(BaseDataset):
    """Sentences with their tones, and the teacher's features beside them.

    Args:
        split: ``train`` or ``valid``.
    """

    fields = (Field("speech", "audio"), Field("text", "text"))

    def __init__(self, split: str) -> None:
        texts = tones.sentences(40)
        self.texts = texts[:32] if split == "train" else texts[32:]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        text = self.texts[int(index)]
        return {"speech": tones.speech(text), "text": text, "teacher": tones.teacher(text)}

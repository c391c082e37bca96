"""Audio → (T, D) features of a pretrained Hugging Face encoder; nothing of ESPnet."""

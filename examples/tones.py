"""Data for the examples, made on the spot: every character is a tone, a sentence a few of them in a row."""

import random

import numpy as np

RATE = 16000
CHARACTERS = "今天气很好我们去"
TOKENS = ["<blank>", "<unk>", *CHARACTERS, "<sos/eos>"]
WIDTH = 64
_FEATURES = np.random.default_rng(0).standard_normal((len(CHARACTERS), WIDTH)).astype(np.float32)


def sentences(count: int, seed: int = 0) -> list[str]:
    """Random sentences of three to six characters."""
    choose = random.Random(seed)
    return ["".join(choose.choices(CHARACTERS, k=choose.randint(3, 6))) for _ in range(count)]


def speech(text: str) -> np.ndarray:
    """(samples,) 0.15 s of its tone for every character."""
    seconds = np.arange(int(0.15 * RATE)) / RATE
    tones = [np.sin(2 * np.pi * (300 + 200 * CHARACTERS.index(character)) * seconds) for character in text]
    return np.concatenate(tones).astype(np.float32)


def teacher(text: str) -> np.ndarray:
    """(U, WIDTH) a fixed random row for every character: stands in for a language model where none is at hand."""
    return _FEATURES[[CHARACTERS.index(character) for character in text]]

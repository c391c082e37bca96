"""Mandarin speech from libespeak-ng (PyPI's ``espeakng-loader``) through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from espnet_gmot.errors import UserError

SAMPLE_RATE = 16000
# Values of enums in espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_RATE, _PITCH = 1, 3
_CHARS_UTF8 = 1  # SSML (0x10) stays off
_END_OF_LIST, _WORD, _END, _PHONEME = 0, 1, 5, 7  # kinds of events
_SEPARATED = ord("|") << 8  # phonemes as text with this between them
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Event(ctypes.Structure):
    """An espeak_EVENT: at which sample what begins."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


class Synthesiser:
    """One espeak-ng voice; use it as a context manager.

    espeak-ng keeps its voice and the state of its flutter generator in static variables, so two utterances of one text
    differ and depend on what was spoken before. Each synthesiser therefore loads a private copy of the library: the
    same calls on a new synthesiser give the same samples.

    Args:
        variant: a file of ``espeak-ng-data/voices/!v``, such as ``m3`` or ``f2``.
        language: an espeak-ng voice.

    Raises:
        UserError: ``espeakng-loader`` is missing, or it has no such voice.
    """

    def __init__(self, variant: str, language: str = "cmn") -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise UserError("the demo corpus needs espeakng-loader: pip install 'espnet_gmot[demo]'") from error
        library, data = Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())
        if not (data / "voices" / "!v" / variant).is_file():
            # espeak-ng itself would silently speak with its plain voice
            raise UserError(f"espeak-ng has no voice variant {variant!r}; choose one of the files of {data}/voices/!v")
        self._folder = tempfile.TemporaryDirectory(prefix="espeak-ng.")
        copy = shutil.copy(library, self._folder.name)
        self._library = ctypes.CDLL(copy)
        rate = self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), _PHONEME_EVENTS)
        if rate <= 0:
            raise UserError(f"espeak-ng cannot read its data in {data}; reinstall espeakng-loader")
        self._library.espeak_ng_SetRandSeed(1)  # breathy voices draw noise; initialising seeded it with the time
        self.native_rate: int = rate
        self._chunks: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, str]] = []  # kind, character, native sample, phoneme
        self._counts: dict[str, int] = {}
        self._callback = _CALLBACK(self._collect)  # kept: the library holds a bare pointer to it
        self._library.espeak_SetSynthCallback(self._callback)
        if self._library.espeak_SetVoiceByName(f"{language}+{variant}".encode()) != 0:
            raise UserError(f"espeak-ng has no voice {language!r}; reinstall espeakng-loader")

    def __enter__(self) -> Synthesiser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.espeak_Terminate()
        self._folder.cleanup()

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int | None) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        place = events
        while place and (event := _Event.from_address(place)).type != _END_OF_LIST:
            name = event.id.decode(errors="replace") if event.type == _PHONEME else ""
            self._events.append((event.type, event.text_position - 1, event.sample, name))
            place += ctypes.sizeof(_Event)
        return 0

    def speak(self, text: str, rate: int = 220, pitch: int = 50) -> np.ndarray:
        """Speak ``text`` and return (samples,) float32 in [-1, 1] at 16 kHz; see :meth:`speak_timed`."""
        return self.speak_timed(text, rate, pitch)[0]

    def speak_timed(self, text: str, rate: int = 220, pitch: int = 50) -> tuple[np.ndarray, np.ndarray]:
        """Speak ``text`` and tell when it speaks which character.

        Args:
            text: hanzi.
            rate: espeak-ng's words a minute; 220 gives about five syllables a second.
            pitch: 0 (low) to 99 (high), relative to the voice.

        Returns:
            (samples,) float32 in [-1, 1] at 16 kHz, and (characters + 1,) seconds: where each character begins, then
            where the last one ends.

        Raises:
            RuntimeError: espeak-ng reports an error, returns no sound, or speaks a word otherwise than its characters.
        """
        import soxr

        self._chunks.clear()
        self._events.clear()
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(
            ctypes.c_char_p(encoded), ctypes.c_size_t(len(encoded)), 0, 1, 0, _CHARS_UTF8, None, None
        )
        self._library.espeak_Synchronize()
        if status != 0 or not self._chunks:
            raise RuntimeError(f"espeak-ng failed (status {status}) on {text!r}")
        samples = np.concatenate(self._chunks).astype(np.float32) / 32768
        times = np.array(self._begins(text)) / self.native_rate
        return soxr.resample(samples, self.native_rate, SAMPLE_RATE), times

    def _begins(self, text: str) -> list[int]:
        """The native sample at which each character begins, and that at which the last one ends.

        espeak-ng tells where words begin, which may have several characters, and where phonemes do: a character of a
        word has as many as it has alone.
        """
        words: list[tuple[int, list[int]]] = []  # first character, samples of the phonemes
        end, speaking = 0, False
        for kind, character, sample, name in self._events:
            if kind == _WORD:
                words.append((character, []))
            elif kind == _PHONEME and words and not name.startswith("_"):
                words[-1][1].append(sample)
                speaking = True
            elif speaking:  # the pause that follows a word
                end, speaking = sample, False
        begins: list[int] = []
        for (first, samples), (after, _) in pairwise([*words, (len(text), [])]):
            counts = [self._count_phonemes(character) for character in text[first:after]]
            if len(counts) > 1 and sum(counts) != len(samples):
                raise RuntimeError(f"espeak-ng speaks {text[first:after]!r} otherwise than its characters alone")
            begins += [samples[sum(counts[:index])] for index in range(len(counts))]
        if len(begins) != len(text):
            raise RuntimeError(f"espeak-ng speaks but {len(begins)} of {len(text)} characters of {text!r}")
        return [*begins, end]

    def _count_phonemes(self, character: str) -> int:
        if character not in self._counts:
            spelled = self.phonemes(character, _SEPARATED).split("|")
            self._counts[character] = sum(bool(name.strip()) and not name.startswith("_") for name in spelled)
        return self._counts[character]

    def phonemes(self, text: str, mode: int = 0) -> str:
        """espeak-ng's phonemes of ``text``, tones included; ``mode`` is that of its espeak_TextToPhonemes."""
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        pointer = ctypes.pointer(ctypes.c_char_p(text.encode()))
        return self._library.espeak_TextToPhonemes(pointer, _CHARS_UTF8, mode).decode()

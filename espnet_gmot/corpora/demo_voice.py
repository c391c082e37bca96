"""Mandarin speech from libespeak-ng (PyPI's ``espeakng-loader``) through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from espnet_gmot.errors import UserError

SAMPLE_RATE = 16000
# Values of enums in espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_RATE, _PITCH = 1, 3
_CHARS_UTF8 = 1  # SSML (0x10) stays off
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


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
        rate = self._library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data).encode(), 0)
        if rate <= 0:
            raise UserError(f"espeak-ng cannot read its data in {data}; reinstall espeakng-loader")
        self._library.espeak_ng_SetRandSeed(1)  # breathy voices draw noise; initialising seeded it with the time
        self.native_rate: int = rate
        self._chunks: list[np.ndarray] = []
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

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, text: str, rate: int = 220, pitch: int = 50) -> np.ndarray:
        """Speak ``text`` and return (samples,) float32 in [-1, 1] at 16 kHz.

        Args:
            text: hanzi.
            rate: espeak-ng's words a minute; 220 gives about five syllables a second.
            pitch: 0 (low) to 99 (high), relative to the voice.

        Raises:
            RuntimeError: espeak-ng reports an error or returns no sound.
        """
        import soxr

        self._chunks.clear()
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
        return soxr.resample(samples, self.native_rate, SAMPLE_RATE)

    def phonemes(self, text: str) -> str:
        """espeak-ng's phonemes of ``text``, tones included."""
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        pointer = ctypes.pointer(ctypes.c_char_p(text.encode()))
        return self._library.espeak_TextToPhonemes(pointer, _CHARS_UTF8, 0).decode()

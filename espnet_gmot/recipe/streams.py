"""Stages 10 and 11 read several tables side by side: whether they belong together is checked before ESPnet starts."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import read_mapping, write_text
from espnet_gmot.kaldi.bad import LIST
from espnet_gmot.kaldi.parallel import cores, each
from espnet_gmot.kaldi.tables import read_table
from espnet_gmot.kaldi.wav import count_samples
from espnet_gmot.recipe.layout import Layout

_SUBSAMPLING = {"conv2d": 4, "conv2d1": 1, "conv2d2": 2, "conv2d6": 6, "conv2d8": 8}
"""Frames that ESPnet's encoders make one, by their input layer; other layers keep them."""
_BY_UTTERANCE = ("kaldi_ark", "sound", "npy", "text", "text_int", "text_float", "csv_int", "csv_float")
"""ESPnet's types of data whose file is a table of utterances."""


def check_streams(layout: Layout, *, audio: bool = False) -> None:
    """Check that every stream of training and validation data holds all of the set's utterances.

    Args:
        layout: the experiment; streams of its asr_args count too.
        audio: check the headers of plain wav files as well, which ESPnet reads itself where another than this engine
            formatted them.

    Raises:
        UserError: a stream lacks utterances, or wavs are cut short; counts them and names the file and the first.
    """
    for split, name in (("train", layout.train_set), ("valid", layout.valid_set)):
        directory = layout.dump / name
        scp, kind = layout.speech(directory)
        speech = read_table(directory / scp)
        for path in (str(directory / "text"), *more_streams(layout.args.asr_args, split)):
            table = read_table(path)
            if lacking := sorted(speech.keys() - table.keys()):
                fix = "run dump-teacher for this text again" if Path(path).name == "teacher.scp" else "make it again"
                raise UserError(
                    f"{path}: lacks {len(lacking)} of the {len(speech)} utterances of {directory / scp}, the first is "
                    f"{lacking[0]}; {fix}"
                )
        if audio and kind == "sound":
            _check_audio(directory / scp, speech)


def more_streams(options: str, split: str) -> Iterator[str]:
    """Tables that ``asr_args`` adds to the training (``train``) or validation (``valid``) data."""
    name = f"--{split}_data_path_and_name_and_type"
    words = iter(shlex.split(options))
    for word in words:
        option, equals, value = word.partition("=")
        if option == name:
            fields = (value if equals else next(words, "")).split(",")
            if len(fields) == 3 and fields[2] in _BY_UTTERANCE:
                yield fields[0]


def list_unalignable(layout: Layout) -> int:
    """List the utterances whose tokens outnumber the encoder's frames, as far as stage 10's configuration tells.

    CTC can't align them, and ESPnet counts their loss as zero. Known are ESPnet's default frontend and features, and
    its encoders' convolutional input layers.

    Returns:
        How many there are; they are listed in ``bad_utterances`` beside the shapes, and one line says so.
    """
    path = layout.asr_stats / "logdir/stats.1/config.yaml"
    config = read_mapping(path)
    hop = 1
    if config.get("input_size") is None:
        if config.get("frontend") != "default":
            return 0
        hop = (config.get("frontend_conf") or {}).get("hop_length", 128)
    factor = _SUBSAMPLING.get((config.get("encoder_conf") or {}).get("input_layer", "conv2d"), 1)
    found = 0
    for split in ("train", "valid"):
        folder = layout.asr_stats / split
        speech, text = (read_table(folder / name) for name in ("speech_shape", "text_shape"))
        bad = {}
        for key in speech.keys() & text.keys():
            frames, tokens = int(speech[key].split(",")[0]) // hop // factor, int(text[key].split(",")[0])
            if frames < tokens:
                bad[key] = f"{frames} frames after subsampling by {factor}, {tokens} tokens: CTC can't align them"
        (folder / LIST).unlink(missing_ok=True)
        if bad:
            write_text(folder / LIST, "".join(f"{key} {bad[key]}\n" for key in sorted(bad)))
            print(
                f"{folder / LIST}: {len(bad)} of {len(speech)} utterances have fewer frames than tokens after the "
                f"encoder's subsampling by {factor}: CTC learns nothing from them",
                flush=True,
            )
        found += len(bad)
    return found


def _check_audio(scp: Path, sources: dict[str, str]) -> None:
    _, bad = each(count_samples, sources, cores(), f"check {scp.parent.name}")
    if bad:
        first = min(bad)
        raise UserError(
            f"{scp}: {len(bad)} of {len(sources)} recordings can't be used, the first is {first}: {bad[first]}; or run "
            "stages 3 and 4 here, with --max_bad"
        )

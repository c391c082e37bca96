"""What a trained experiment makes of one recording: its graphs, couplings and CTC posteriors."""

import argparse
import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from espnet2.tasks.asr import ASRTask
from espnet2.torch_utils.load_pretrained_model import load_pretrained_model
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from espnet2.train.dataset import ESPnetDataset

from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError
from espnet_gmot.files import working_in
from espnet_gmot.graph import Graph
from espnet_gmot.hosts.export import read_config
from espnet_gmot.hosts.features import note_of
from espnet_gmot.hosts.model import ESPnetGMOTASRModel
from espnet_gmot.hosts.places import RECIPE, root_of
from espnet_gmot.hosts.register import register
from espnet_gmot.hosts.unfit import check_spelling, long_enough
from espnet_gmot.kaldi.ark import read_matrix
from espnet_gmot.kaldi.ctm import field
from espnet_gmot.kaldi.tables import read_table
from espnet_gmot.kaldi.wav import file_of, read_audio, read_wav_scp, sampling_rate
from espnet_gmot.loss import GMOTLoss
from espnet_gmot.schedule import Now

_LOG = logging.getLogger(__name__)
_SPECIAL = ("[CLS]", "[SEP]")


@dataclass(frozen=True)
class Coupled:
    """The two graphs that one transfer couples.

    Attributes:
        place: where the acoustic graph comes from, as ``gmot_conf.tap`` names it.
        loss: the transfer.
        acoustic, linguistic: graphs of one utterance (B = 1).
        plan: (T, U) the coupling that the experiment trains with.
    """

    place: str
    loss: GMOTLoss
    acoustic: Graph
    linguistic: Graph
    plan: np.ndarray

    def coupled_by(self, alpha: float) -> np.ndarray:
        """The plan (T, U) of the same graphs with another share of the edges, all else as trained."""
        now = Now(1.0, alpha, self.loss.config.epsilon)
        with torch.no_grad():
            return self.loss.transport(self.acoustic, self.linguistic, now).plan[0].double().numpy()

    def coupled_as(self, preset: str) -> np.ndarray:
        """The plan (T, U) of the same graphs as a member of the family (:data:`~espnet_gmot.presets.PRESETS`) has it.

        Raises:
            UserError: the preset doesn't transport.
        """
        keep = {"teacher_width": self.loss.config.teacher_width, "backend": self.loss.config.backend}
        # of one graph, whatever the preset ties together: what it has as its nodes is observed already
        config = GMOTConfig.from_dict({**keep, "tap": "encoder", "teacher_layer": -1, "preset": preset})
        if config.coupling != "transport":
            raise UserError(f"preset {preset}: couples by a trained {config.coupling}, so no other model has it")
        other = copy.copy(self.loss)
        other.config = config
        heard = self.loss.config.frame_weights != "uniform"  # no preset weighs frames by what is heard in them
        acoustic = replace(self.acoustic, weights=None) if heard else self.acoustic
        with torch.no_grad():
            return other.transport(acoustic, self.linguistic).plan[0].double().numpy()


@dataclass(frozen=True)
class Observation:
    """One recording as an experiment sees it.

    Attributes:
        utterance: its name.
        tokens: texts of the U nodes of the linguistic graphs.
        seconds: length.
        speech: (samples,) the waveform, or (frames, width) features.
        rate: Hz of a waveform; None for features.
        labels: ids of the recogniser's tokens, and their texts in ``pieces``.
        log_probs: (T, V) of the CTC head; None without one.
        couplings: one for each tap; none for a stock experiment.
        stats: what the model reports of this utterance.
    """

    utterance: str
    tokens: list[str]
    seconds: float
    speech: np.ndarray
    rate: int | None
    labels: list[int]
    pieces: list[str]
    log_probs: np.ndarray | None
    couplings: list[Coupled]
    stats: dict[str, float]


class Observer:
    """A trained experiment that can be asked what it makes of recordings.

    Args:
        exp: experiment folder, with ``config.yaml``; relative paths in it hold in one of the folders above it, or in
            the working directory (:mod:`espnet_gmot.hosts.places`).
        model_file: parameters, by default the first of ``*.ave.pth``, ``*.best.pth`` and ``latest.pth``.
        teacher: folder or hub name of the PLM, where neither the experiment nor its archives tell.
        initial: the model as its training began, instead of trained parameters: from the experiment's seed, and from
            the parameters of ``init_param`` where it started from a trained model.

    Raises:
        UserError: no such experiment, parameters or files of its recipe.
    """

    def __init__(
        self, exp: str | Path, model_file: str | None = None, teacher: str | None = None, *, initial: bool = False
    ) -> None:
        register()
        self.exp = Path(exp)
        if not (self.exp / "config.yaml").is_file():
            raise UserError(f"{exp}: no config.yaml; give the folder of a trained experiment, such as exp/asr_gmot")
        self.file = None if initial else _parameters(self.exp, model_file)
        config = read_config(self.exp)
        self.root = root_of(self.exp, _paths(config)) or Path.cwd()
        set_all_random_seed(config.get("seed", 0))
        self.model, self.args = _build(self.exp / "config.yaml", self.file, self.root)
        if initial:
            self._begin(config)
        self.model.eval()
        with working_in(self.root):
            self.preprocess = ASRTask.build_preprocess_fn(self.args, train=False)
            self._units("")  # it reads its file of pieces when it is first used
        self.collate = ASRTask.build_collate_fn(self.args, train=False)
        self.streams = _streams(self.args)
        self.rate = sampling_rate((self.args.frontend_conf or {}).get("fs", 16000), "frontend_conf.fs")
        self.raw = self.args.input_size is None
        self._teacher_name = str(Path(teacher).absolute()) if teacher and Path(teacher).exists() else teacher
        self._plm: Any = None

    def _begin(self, config: dict[str, Any]) -> None:
        """Load what ESPnet loads before the first step."""
        for place in config.get("init_param") or ():
            with working_in(self.root):
                file = place.partition(":")[0]
                if not Path(file).is_file():
                    raise UserError(f"{self.exp}: began from {file}, which isn't there: restore it")
                load_pretrained_model(place, self.model, bool(config.get("ignore_init_mismatch")))

    def centre_as(self, other: "Observer") -> None:
        """Take over another's running mean of the teacher's features, which knows nothing before training."""
        mine, theirs = (
            [module for module in each.model.modules() if isinstance(module, GMOTLoss)] for each in (self, other)
        )
        for here, there in zip(mine, theirs, strict=True):
            here.teacher_mean.copy_(there.teacher_mean)

    def recorded(self, directory: str | Path, utterance: str, frame_shift: float | None = None) -> Observation:
        """Observe an utterance of a data directory (``dump/raw/dev``).

        Args:
            directory: Kaldi data directory with the files that the experiment was trained on: wav.scp or feats.scp,
                and text.
            utterance: its name.
            frame_shift: seconds between two feature frames, where the model reads features and ``dump-frontend``'s
                note isn't beside them.
        """
        directory = Path(directory)
        path, kind = next(iter(self.streams["speech"].items()))
        speech, texts = tables = (directory / path.name, directory / "text")
        for table in tables:
            if utterance not in read_table(table):
                raise UserError(f"{table}: no utterance {utterance}; choose one of its first column")
        root, speech, text = self._root_of(speech, read_table(speech)[utterance]), speech.absolute(), texts.absolute()
        with working_in(root):
            sources = [(str(speech), "speech", kind), (str(text), "text", "text")]
            loaded = ESPnetDataset(sources, preprocess=self.preprocess)[utterance]
            samples = loaded[1]["speech"]
            seconds = len(samples) / self.rate if self.raw else _length(speech, utterance, len(samples), frame_shift)
        rows, words = self._archived(directory, utterance), read_table(texts)[utterance]
        return self._observe(loaded, words, f"{texts}: {utterance}", seconds, rows)

    def heard(self, wav: str | Path, text: str) -> Observation:
        """Observe a recording with its transcript, written as in the training set.

        Raises:
            UserError: the audio can't be read, or the model reads features instead.
        """
        if not self.raw:
            raise UserError(f"--wav {wav}: {self.exp} reads features, not audio: give --set and --utt")
        if not Path(wav).is_file():
            raise UserError(f"--wav {wav}: no such file")
        name = field(Path(wav).stem)  # a name as Kaldi's are, which hold no white space
        audio = read_audio(str(wav), self.rate)
        loaded = (name, self.preprocess(name, {"speech": audio, "text": text}))
        return self._observe(loaded, text, f"--text '{text}'", len(audio) / self.rate, None)

    def _units(self, text: str) -> list[str]:
        """The tokens of a text before they become ids; none where the preprocessor doesn't tell."""
        tokenizer, clean = (getattr(self.preprocess, name, None) for name in ("tokenizer", "text_cleaner"))
        return list(tokenizer.text2tokens(clean(text))) if tokenizer and clean else []

    def _observe(
        self, loaded: tuple[str, dict], text: str, where: str, seconds: float, teacher: np.ndarray | None
    ) -> Observation:
        name, data = loaded
        if not len(data["text"]):
            raise UserError(f"{name}: its transcript is empty; give some text")
        labels = data["text"].tolist()
        pieces = [self.args.token_list[label] for label in labels]
        check_spelling(pieces, self._units(text), where, needed=teacher is None)
        _, batch = self.collate([loaded])
        couples = self.model.gmot is not None if isinstance(self.model, ESPnetGMOTASRModel) else False
        losses = [module for module in self.model.modules() if isinstance(module, GMOTLoss)]
        if couples:
            transcript = self.model.transcripts(batch["text"], batch["text_lengths"])[0]
            rows = self._ask(transcript) if teacher is None else torch.tensor(teacher)[None]
            batch |= {"teacher": rows.float(), "teacher_lengths": torch.tensor([rows.shape[1]])}
        inputs: dict[int, tuple] = {}
        hooks = [
            loss.register_forward_pre_hook(lambda module, given: inputs.update({id(module): given})) for loss in losses
        ]
        try:
            with torch.no_grad(), long_enough(name):
                _, stats, _ = self.model(**batch)
                log_probs = self._posteriors(batch)
                graphs = [loss.graphs(*inputs[id(loss)]) for loss in losses]
        finally:
            for hook in hooks:
                hook.remove()
        places = self.model.gmot_config.taps if couples else []
        tokens = _names(transcript, len(batch["teacher"][0])) if couples else pieces
        return Observation(
            utterance=name,
            tokens=tokens,
            seconds=seconds,
            speech=data["speech"],
            rate=self.rate if self.raw else None,
            labels=labels,
            pieces=pieces,
            log_probs=log_probs,
            couplings=[
                Coupled(place, loss, *graph, cast(Any, loss.coupling).attn[0, 0].T.double().numpy())
                for place, loss, graph in zip(places, losses, graphs, strict=True)
            ],
            stats={key: float(value) for key, value in stats.items() if value is not None},
        )

    def _posteriors(self, batch: dict[str, torch.Tensor]) -> np.ndarray | None:
        if self.model.ctc is None:
            return None
        encoded, _ = self.model.encode(batch["speech"], batch["speech_lengths"])
        encoded = encoded[0] if isinstance(encoded, tuple) else encoded
        return self.model.ctc.log_softmax(encoded)[0].double().numpy()

    def _archived(self, directory: Path, utterance: str) -> np.ndarray | None:
        """The teacher's rows of an utterance where an archive holds them: the directory's own, or a training stream."""
        for scp in self.streams.get("teacher", {}):
            for place in (directory / scp.parent.name / scp.name, self.root / scp):
                if place.is_file() and utterance in (table := read_table(place)):
                    with working_in(self._root_of(place, table[utterance])):
                        return read_matrix(table[utterance])
        return None

    def _root_of(self, table: Path, entry: str) -> Path:
        """The folder in which a table's entry holds; that of the experiment's paths for a command.

        Raises:
            UserError: its file is nowhere.
        """
        if (file := file_of(entry)) is None:
            return self.root
        if (root := root_of(table, [file])) is None:
            raise UserError(f"{table}: {file}: no such file: {RECIPE}")
        return root

    def _ask(self, transcript: str) -> torch.Tensor:
        """The teacher's rows (1, U, D) of a transcript that no archive holds."""
        from espnet_gmot.teacher.plm import PLMTeacher

        config = self.model.gmot_config
        with working_in(self.root):
            if self._plm is None and config.teacher:  # it read online, which its options describe wherever it is now
                self._plm = PLMTeacher(
                    self._teacher_name or config.teacher,
                    layer=config.teacher_layer,
                    special_tokens=config.special_tokens,
                    stats=config.teacher_stats,
                )
            elif self._plm is None:
                info, folder = self._note()
                self._plm = PLMTeacher(
                    self._teacher_name or info["model"],
                    layer=info.get("layer", config.teacher_layer),
                    special_tokens=info.get("special_tokens", False),
                    stats=folder if info.get("normalise", "none") != "none" else None,
                )
            return self._plm([transcript])[0]

    def _note(self) -> tuple[dict[str, Any], Path | None]:
        """What dump-teacher wrote of the archives that the experiment was trained on."""
        for scp in self.streams.get("teacher", {}):
            if note := note_of(folder := self.root / scp.parent):
                return note, folder
        if self._teacher_name:
            return {}, None
        raise UserError(
            f"{self.exp}: no archive holds the teacher's features of this text, and no teacher.json says which model "
            "it was: give --teacher, or run dump-teacher on the set's text"
        )


def _streams(args: argparse.Namespace) -> dict[str, dict[Path, str]]:
    """Files and ESPnet types of every data stream of an experiment, the validation set's first."""
    streams: dict[str, dict[Path, str]] = {}
    for path, name, kind in [*args.valid_data_path_and_name_and_type, *args.train_data_path_and_name_and_type]:
        streams.setdefault(name, {})[Path(path)] = kind
    return streams


def _paths(config: dict[str, Any]) -> list[str]:
    """The relative paths of a configuration that tell where it was trained."""
    streams = [
        *(config.get("valid_data_path_and_name_and_type") or ()),
        *(config.get("train_data_path_and_name_and_type") or ()),
    ]
    stats = (config.get("normalize_conf") or {}).get("stats_file")
    paths = [*(stream[0] for stream in streams), stats, config.get("bpemodel"), config.get("token_list")]
    return [path for path in paths if isinstance(path, str) and not Path(path).is_absolute()]


def _build(config: Path, parameters: Path | None, root: Path) -> tuple[Any, argparse.Namespace]:
    """The model and its options.

    Raises:
        UserError: a file that the configuration names is absent, or the configuration is cut short.
    """
    mend = "as if it were cut short: restore it"
    try:
        with working_in(root):
            return ASRTask.build_model_from_file(config.absolute(), parameters and parameters.absolute())
    except FileNotFoundError as error:
        raise UserError(f"{config}: {error.filename or error}: no such file: {RECIPE}") from error
    except AttributeError as error:
        if not isinstance(error.obj, argparse.Namespace):
            raise
        raise UserError(f"{config}: no line `{error.name}:`, {mend}") from error
    except RuntimeError as error:
        if parameters is None or "loading state_dict" not in str(error):
            raise
        raise UserError(f"{config}: describes another model than that of {parameters.name}, {mend}") from error


def _parameters(exp: Path, name: str | None) -> Path:
    if name:
        if not (exp / name).is_file():
            there = ", ".join(sorted(path.name for path in exp.glob("*.pth"))[:8]) or "none"
            raise UserError(f"{exp}: no --asr_model_file {name}; there are {there}")
        return exp / name
    for pattern in ("*.ave.pth", "*.best.pth", "latest.pth"):
        if found := sorted(exp.glob(pattern)):
            _LOG.info("parameters: %s", found[0])
            return found[0]
    raise UserError(f"{exp}: no *.ave.pth, *.best.pth or latest.pth; train it first (stage 11)")


def _length(feats: Path, utterance: str, frames: int, frame_shift: float | None) -> float:
    """Seconds of an utterance whose features are known: by the shift, or by the audio that they were made of."""
    if frame_shift is not None:
        return frames * frame_shift
    ark = Path(read_table(feats)[utterance].rpartition(":")[0])
    note = ark.parent / "frontend.json"
    if not note.is_file():
        raise UserError(f"{feats}: features don't tell their time, and no {note} does: give --frame_shift SECONDS")
    info = json.loads(note.read_text(encoding="utf-8"))
    sources = read_wav_scp(info["wav_scp"])
    if utterance not in sources:
        raise UserError(f"{info['wav_scp']}: no utterance {utterance}: give --frame_shift SECONDS")
    audio = read_audio(sources[utterance], info["sampling_rate"])
    return len(audio) / info["sampling_rate"]


def _names(transcript: str, rows: int) -> list[str]:
    """Texts of the teacher's rows: the characters, with the special tokens' around; numbers where rows are pieces."""
    characters: Sequence[str] = [character for character in transcript if not character.isspace()]
    for names in (characters, [_SPECIAL[0], *characters, _SPECIAL[1]]):
        if len(names) == rows:
            return list(names)
    return [str(number) for number in range(1, rows + 1)]

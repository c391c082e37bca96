"""Transcripts, the recogniser's tokens and the teacher: whether they speak of the same language."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence

from espnet_gmot.adopt.recipe import Recipe
from espnet_gmot.config import GMOTConfig
from espnet_gmot.errors import UserError

#: What has to be alike in a configuration and in the experiment that it starts from.
ARCHITECTURE = (
    *("frontend", "preencoder", "encoder", "encoder_conf", "postencoder", "decoder", "decoder_conf"),
    *("joint_net", "joint_net_conf"),
)
_MOST = 0.5
"""Share of the transcripts that the tokens, or the teacher, may lack before they count as foreign."""


def check(args: argparse.Namespace, recipe: Recipe, config: GMOTConfig, texts: list[str]) -> Iterator[tuple[str, str]]:
    """Lines for the user, one on the tokens and one or two on the teacher.

    Args:
        args: adopt's options.
        recipe: what is there.
        config: the transfer's options.
        texts: the distinct transcripts.

    Raises:
        UserError: the teacher doesn't know the language, or an online teacher couldn't read the tokens.
    """
    if recipe.token_list is not None:
        tokens = recipe.token_list.read_text(encoding="utf8").splitlines()
        kind, share = coverage(tokens, texts)
        yield "tokens", f"{recipe.token_list}: {len(tokens)} {kind}, which hold {share:.1%} of the transcripts"
        if share < _MOST and args.teacher_mode == "online":
            raise UserError(
                f"{recipe.token_list}: holds {share:.0%} of the transcripts' {kind}: an online teacher reads the "
                "tokens, and phones say nothing to it: give --teacher_mode archive, which reads the transcripts"
            )
    elif args.teacher_mode == "online":
        yield "tokens", "no token list yet: what an online teacher will read can't be checked"
    from espnet_gmot.teacher.plm import PLMTeacher

    teacher = PLMTeacher(args.teacher, layer=config.teacher_layer)
    width, tokens_of = teacher.width, teacher.tokens
    rate, lacking = tokens_of.check_language(texts, _MOST)
    what = (
        f"lacks {rate:.2%} of the transcripts' characters ({' '.join(lacking[:8])})"
        if lacking
        else "lacks no character"
    )
    yield "teacher", f"{args.teacher}: {width} wide, {what}"
    letters = "".join(texts)
    if letters.isupper() and tokens_of.cased():
        why = "the transcripts are in capitals, which this teacher tells from small letters"
        yield "note", f"{why}: an uncased one (bert-base-uncased for English) reads them better"


def coverage(tokens: Sequence[str], texts: Sequence[str]) -> tuple[str, float]:
    """What kind of tokens a list holds, and how much of the transcripts they can spell.

    Args:
        tokens: ESPnet's token list.
        texts: transcripts.

    Returns:
        The kind, and the share of the transcripts' words (for a list of words) or characters.
    """
    from espnet_gmot.hosts.detokenizer import Transcripts

    reader = Transcripts(tokens)
    if reader.byte_decoder is not None:
        return "byte-level pieces", 1.0
    if reader.separator and not reader.word_pieces:
        units, known, kind = " ".join(texts).split(), {token.casefold() for token in tokens}, "words"
    else:
        units, known = list("".join("".join(texts).split())), set("".join(tokens).casefold())
        kind = "pieces" if reader.pieces or reader.word_pieces else "characters"
    counts = Counter(unit.casefold() for unit in units)
    return kind, sum(n for unit, n in counts.items() if unit in known) / max(1, counts.total())

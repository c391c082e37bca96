"""Stage 5: the token list (characters or words by ESPnet's tokenizer, pieces by sentencepiece)."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.files import write_text
from espnet_gmot.kaldi.parallel import LIGHT, cores, in_chunks
from espnet_gmot.kaldi.tables import count_lines, read_lines, read_transcripts
from espnet_gmot.recipe.layout import Layout


def make_token_list(layout: Layout) -> int:
    """Write the token list and return its length."""
    if layout.args.token_type == "bpe":
        _train_sentencepiece(layout)
    else:
        _count_tokens(layout)
    return count_lines(layout.token_list)


def tokenizer(layout: Layout, unit: str, cleaner: str, *, scoring: bool = False) -> Callable[[str], list[str]]:
    """ESPnet's tokenizer for ``char``, ``word`` or ``bpe``, behind its text cleaner.

    Imported class by class: ESPnet's ``build_tokenizer`` loads every tokenizer there is, which takes 8 s.

    Args:
        layout: for ``nlsyms_txt`` and the sentencepiece model.
        unit: char, word or bpe.
        cleaner: ESPnet's name of a text cleaner, or "none".
        scoring: drop non-linguistic symbols (characters and words only).
    """
    symbols = None if layout.args.nlsyms_txt == "none" else layout.args.nlsyms_txt
    if symbols and not Path(symbols).is_file():
        raise UserError(f"--nlsyms_txt {symbols}: no such file")
    if unit == "bpe":
        from espnet2.text.sentencepiece_tokenizer import SentencepiecesTokenizer

        split = SentencepiecesTokenizer(layout.bpemodel).text2tokens
    elif unit == "word":
        from espnet2.text.word_tokenizer import WordTokenizer

        split = WordTokenizer(
            non_linguistic_symbols=symbols if scoring else None, remove_non_linguistic_symbols=scoring
        ).text2tokens
    else:
        from espnet2.text.char_tokenizer import CharTokenizer

        split = CharTokenizer(non_linguistic_symbols=symbols, remove_non_linguistic_symbols=scoring).text2tokens
    if cleaner == "none":
        return split
    from espnet2.text.cleaner import TextCleaner

    return partial(_cleaned, TextCleaner(cleaner), split)


def _cleaned(clean: Callable[[str], str], split: Callable[[str], list[str]], text: str) -> list[str]:
    return split(clean(text))


def _count_tokens(layout: Layout) -> None:
    args = layout.args
    split = tokenizer(layout, args.token_type, args.cleaner)
    text = layout.dump / "lm_train.txt"
    counts: Counter[str] = Counter()
    for part in in_chunks(partial(_count, split), read_transcripts(text, allow_empty=True), cores(), LIGHT):
        counts.update(part)
    if not counts:
        raise UserError(f"{text}: holds no text; check --lm_train_text")
    # frequent tokens first, equally frequent ones in order of appearance: the order of ESPnet's tokenize_text
    found = sorted(counts, key=lambda token: -counts[token])
    write_text(layout.token_list, "".join(f"{token}\n" for token in [args.blank, args.oov, *found, args.sos_eos]))


def _count(split: Callable[[str], list[str]], items: list[tuple[str, str]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for _, sentence in items:
        counts.update(split(sentence))
    return counts


def _train_sentencepiece(layout: Layout) -> None:
    import sentencepiece

    args, folder = layout.args, layout.token_list.parent
    paths = args.bpe_train_text.split() or [str(layout.dump / "org" / layout.train_set / "text")]
    sentences = [text for path in paths for text in read_transcripts(path, allow_empty=True).values()]
    write_text(folder / "train.txt", "".join(f"{sentence}\n" for sentence in sentences))
    symbols = args.bpe_nlsyms
    if Path(symbols).is_file():
        symbols = ",".join(line.split()[0] for _, line in read_lines(symbols))
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "train.txt"),
            vocab_size=args.nbpe,
            model_type=args.bpemode,
            model_prefix=str(folder / "bpe"),
            character_coverage=float(args.bpe_char_cover),
            input_sentence_size=args.bpe_input_sentence_size,
            **({"user_defined_symbols": symbols} if symbols else {}),
        )
    except RuntimeError as error:
        raise UserError(f"--nbpe {args.nbpe}: sentencepiece refuses: {' '.join(str(error).split())}") from error
    pieces = [
        line.split("\t")[0] for _, line in list(read_lines(folder / "bpe.vocab"))[3:]
    ]  # without <unk>, <s> and </s>
    write_text(layout.token_list, "".join(f"{token}\n" for token in [args.blank, args.oov, *pieces, args.sos_eos]))

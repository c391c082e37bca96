"""Stage 5: the token list (characters or words by ESPnet's tokenizer, pieces by sentencepiece)."""

import contextlib
import io
import os
from pathlib import Path

from espnet_gmot.errors import UserError
from espnet_gmot.recipe.files import write_text
from espnet_gmot.recipe.layout import Layout
from espnet_gmot.recipe.tables import read_table


def make_token_list(layout: Layout) -> int:
    """Write the token list and return its length."""
    if layout.args.token_type == "bpe":
        _train_sentencepiece(layout)
    else:
        _count_tokens(layout)
    return len(layout.token_list.read_text(encoding="utf-8").splitlines())


def _count_tokens(layout: Layout) -> None:
    from espnet2.bin import tokenize_text

    args = layout.args
    layout.token_list.parent.mkdir(parents=True, exist_ok=True)
    made = layout.token_list.with_name(".tokens.txt.part")
    command = ["--token_type", args.token_type, "--field", "2-", "--write_vocabulary", "true"]
    command += ["--input", str(layout.dump / "lm_train.txt"), "--output", str(made)]
    command += ["--non_linguistic_symbols", args.nlsyms_txt, "--cleaner", args.cleaner, "--g2p", args.g2p]
    for symbol, place in ((args.blank, 0), (args.oov, 1), (args.sos_eos, -1)):
        command += ["--add_symbol", f"{symbol}:{place}"]
    with contextlib.redirect_stderr(io.StringIO()):  # it prints this process's own command line
        tokenize_text.main(command)
    write_text(layout.token_list, made.read_text(encoding="utf-8"))
    os.remove(made)


def _train_sentencepiece(layout: Layout) -> None:
    import sentencepiece

    args, folder = layout.args, layout.token_list.parent
    paths = args.bpe_train_text.split() or [str(layout.dump / "org" / layout.train_set / "text")]
    sentences = [text for path in paths for text in read_table(path).values()]
    write_text(folder / "train.txt", "".join(f"{sentence}\n" for sentence in sentences))
    symbols = args.bpe_nlsyms
    if Path(symbols).is_file():
        symbols = ",".join(
            line.split()[0] for line in Path(symbols).read_text(encoding="utf-8").splitlines() if line.split()
        )
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
    vocabulary = (folder / "bpe.vocab").read_text(encoding="utf-8").splitlines()
    pieces = [line.split("\t")[0] for line in vocabulary[3:]]  # without <unk>, <s> and </s>
    write_text(layout.token_list, "".join(f"{token}\n" for token in [args.blank, args.oov, *pieces, args.sos_eos]))

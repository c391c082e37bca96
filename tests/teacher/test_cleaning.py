"""What of a transcript a teacher reads."""

import pytest

from espnet_gmot.teacher.cleaning import Cleaner


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<NOISE>", ""),
        ("今天<NOISE>天气", "今天天气"),
        ("good <NOISE> morning", "good morning"),
        ("good<NOISE>NOISEmorning", "good NOISEmorning"),
        ("iPhone<NOISE><NOISE>mini", "iPhone mini"),
        ("我用NOISE手机", "我用手机"),
        ("NOISELESS", "NOISELESS"),
        ("a <b> [c] <noise>", "a <b> [c] <noise>"),
        ("\ufeff今\u200b天\u2060 \u3000好\u00a0 \u2028的\x07", "今天 好 的"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("今天 <unk>", "今天 <unk>"),
    ],
)
def test_only_what_can_be_read_stays(text: str, read: str) -> None:
    clean = Cleaner(["<NOISE>", "NOISE", ""])
    assert clean(text) == read
    assert clean(read) == read

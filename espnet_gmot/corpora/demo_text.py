"""A small Mandarin grammar, rich in homophones, for the synthetic demo corpus.

The sentences are about a family's day. Nearly every content character has a homophone in another phrase (他/她/它,
在/再, 做/作/坐/座, 骑/棋/旗, 是/事/市/试/室, 园/元/员/圆, 完/玩, 课/客/刻, ...): the sound alone does not tell which
one is meant, the sentence does. That is the kind of knowledge a language model has and a recogniser must learn.
"""

from __future__ import annotations

import random
import re

#: Groups of characters that the synthesiser reads alike, tone included (a test asks it for the phonemes).
HOMOPHONES: tuple[str, ...] = (
    "他她它",
    "在再",
    "做作坐座",
    "骑棋旗",
    "期七",
    "是事市试室",
    "十时石食",
    "的得地",
    "书叔输",
    "园元员圆",
    "雨语",
    "画话",
    "钟中",
    "近进",
    "带戴",
    "树数",
    "友有",
    "长常",
    "心新",
    "里礼",
    "已以椅",
    "公工",
    "块快",
    "课客刻",
    "完玩",
    "气汽",
    "生声",
    "机鸡",
    "一衣医",
    "道到",
)

#: Frames of a sentence, each with the same probability. ``{X}`` is the one whom the pronoun ``TA`` means: 他, 她 or 它.
PERSON_FRAMES: tuple[str, ...] = (
    "{X}说TA{WHEN}{HOBBY}",
    "{X}说TA{WHEN}去{PLACE}",
    "{X}说TA{SKILL}{DE}",
    "{X}{ADV}地说TA{LATE}",
    "{X}可以带TA的{KIN}{HOBBY}",
    "{X}和TA的朋友{AT}{HOBBY}",
    "{AT}{P}在等{X}和TA的{KIN}",
    "{P}送{X}一个{PRESENT}TA{MOOD}",
    "{P}{AT}等{X}TA{LATE}",
    "{P}和{X}下棋TA输了",
    "{X}做完{WORK}TA再{HOBBY}",
    "{X}不知道TA的{THING}在{P}家",
    "{P}说{X}在找TA的{THING}",
    "{P}带{X}去{PLACE}看TA的{KIN}",
    "{X}工作{NUM}个小时TA{MOOD}",
)
ANIMAL_FRAMES: tuple[str, ...] = (
    "{X}{AT}等TA的食物",
    "{X}吃完了TA{AT}玩",
    "{X}{AT}和TA的朋友玩球",
    "{P}说{X}在找TA的食物",
    "{P}的{X}跑得{HOW}TA{MOOD}",
    "{X}坐在椅子上TA在等{P}",
    "{P}送{P}一个{X}TA{AT}",
    "{P}做完{WORK}再带{X}去找TA的朋友",
)
OTHER_FRAMES: tuple[str, ...] = (
    "{WHEN}{P}{DO}",
    "{P}{DO}",
    "{P}和{P}{DO}",
    "{WEATHER}{P}{OUTING}",
    "这是{P}的{THING}",
    "这个{PRESENT}{NUM}{MONEY}",
    "{PLACE}很近{P}可以骑车去",
    "{P}到{PLACE}要坐{NUM}个小时汽车",
    "{P}的座椅在{P}的{SIDE}",
    "{WHEN}{P}有{LESSON}课",
    "{WHEN}{P}有{LESSON}考试",
    "这座桥的石头很{BIG}",
    "教室里有{NUM}个学生在{HOBBY}",
    "{P}已经进{PLACE}了",
    "{P}不知道{P}有事",
    "市场的{BUY}要{NUM}{MONEY}",
    "{P}的飞机{NUM}点到",
    "{P}可以坐在{P}的椅子上",
    "{P}的国旗很{BIG}要{NUM}{MONEY}",
)
#: What ``{X}`` may be, for each pronoun.
ANTECEDENTS: dict[str, tuple[str, ...]] = {
    "他": ("爸爸", "爷爷", "哥哥", "叔叔", "弟弟", "儿子", "先生"),
    "她": ("妈妈", "奶奶", "姐姐", "妹妹", "女儿", "太太", "阿姨"),
    "它": ("小狗", "小猫", "小鸡", "小马", "小羊"),
}
#: Context-free rules: a name in braces is replaced by one of its alternatives, each with the same probability.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "P": (*ANTECEDENTS["他"], *ANTECEDENTS["她"], "朋友", "医生", "工人", "店员", "客人"),
    "KIN": (*ANTECEDENTS["他"][2:6], *ANTECEDENTS["她"][2:5], "朋友", "客人"),
    "WHEN": ("今天", "明天", "早上", "中午", "星期{DAY}", "七点", "十点", "三点一刻"),
    "DAY": ("一", "三", "天"),
    "NUM": ("一", "两", "三", "七", "十"),
    "PLACE": ("公园", "教室", "市场", "石桥", "学校"),
    "AT": ("在公园里", "在教室里", "在市场", "在家里", "在石桥上", "在学校", "在树下", "在圆桌下"),
    "DO": (
        "{AT}{HOBBY}",
        "{AT}等{P}",
        "在{HOBBY}",
        "{GO}",
        "{GO}{HOBBY}",
        "再{AGAIN}",
        "做完{WORK}再{HOBBY}",
        "玩{NUM}个小时",
        "工作{NUM}个小时",
        "常常{HOBBY}",
        "{ADV}地{HOBBY}",
        "戴新帽子去{PLACE}",
        "带{P}去{PLACE}",
        "送{P}一个{PRESENT}",
    ),
    "OUTING": ("在家里{HOBBY}", "坐汽车去{PLACE}", "不去{PLACE}", "戴帽子去{PLACE}", "在{HOBBY}", "骑车到{PLACE}"),
    "HOBBY": (
        "看书",
        "骑车",
        "下棋",
        "画画",
        "做饭",
        "做作业",
        "玩球",
        "说话",
        "上课",
        "学英语",
        "学数学",
        "数石头",
        "吃食物",
        "工作",
        "画{PICTURE}",
        "买{BUY}",
    ),
    "PICTURE": ("小狗", "小鸡", "国旗", "飞机", "汽车", "大树", "雨", "一座桥", "圆桌"),
    "BUY": ("新衣服", "新书", "椅子", "礼物", "圆桌", "食物", "新棋", "小鸡", "国旗"),
    "WORK": ("作业", "饭", "工作", "数学", "事"),
    "GO": ("坐汽车去{PLACE}", "坐飞机", "骑车去{PLACE}", "进教室", "进公园", "到{PLACE}去", "到家"),
    "AGAIN": ("试一次", "说一次", "吃一块", "画一个", "等一刻钟", "下一次棋", "看一次书", "输一次"),
    "ADV": ("开心", "大声", "慢慢"),
    "PRESENT": ("礼物", "椅子", "书包", "国旗", "大钟"),
    "SKILL": ("下棋", "画画", "做饭", "说话", "骑车", "玩球"),
    "HOW": ("很快", "很好", "不快", "不好", "很慢", "很开心"),
    "MOOD": ("很开心", "不开心", "很生气", "要再试一次", "还要一个"),
    "LATE": ("已经到了", "还在家里", "有事", "有时间", "要坐汽车"),
    "DE": ("做得{HOW}", "学得{HOW}", "玩得{HOW}"),
    "THING": ("书", "衣服", "帽子", "椅子", "作业", "画", "棋", "书包"),
    "SIDE": ("里面", "前面"),
    "MONEY": ("元", "块"),
    "LESSON": ("英语", "数学"),
    "BIG": ("大", "长", "新"),
    "WEATHER": ("下雨了", "天气很好", "天气不好", "今天有雨", "明天下雨"),
}

_SLOT = re.compile(r"\{(\w+)\}")


def _expand(text: str, rng: random.Random) -> str:
    return _SLOT.sub(lambda slot: _expand(rng.choice(GRAMMAR[slot.group(1)]), rng), text)


def sentence(rng: random.Random) -> str:
    """Draw one sentence (hanzi, no spaces or punctuation)."""
    pronoun = rng.choice(("他", "她", "它", "", ""))
    frames = {"它": ANIMAL_FRAMES, "": OTHER_FRAMES}.get(pronoun, PERSON_FRAMES)
    frame = rng.choice(frames)
    if pronoun:
        frame = frame.replace("{X}", rng.choice(ANTECEDENTS[pronoun])).replace("TA", pronoun)
    return _expand(frame, rng)


def distinct_sentences(count: int, rng: random.Random, exclude: frozenset[str] = frozenset()) -> list[str]:
    """Draw ``count`` different sentences, none of them in ``exclude``.

    Raises:
        ValueError: the grammar does not yield that many (given up after 50 draws for each sentence wanted).
    """
    found: dict[str, None] = {}
    for _ in range(50 * count + 1000):
        if len(found) == count:
            return list(found)
        drawn = sentence(rng)
        if drawn not in exclude and 6 <= len(drawn) <= 16:
            found[drawn] = None
    raise ValueError(f"the demo's grammar gave only {len(found)} of {count} distinct sentences; ask for fewer")

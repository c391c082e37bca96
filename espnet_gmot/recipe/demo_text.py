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

#: Context-free rules: a name in braces is replaced by one of its alternatives, each with the same probability.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "S": (
        "{M}{PRED_M}",
        "{M}{PRED_M}",
        "{F}{PRED_F}",
        "{F}{PRED_F}",
        "{A}{PRED_A}",
        "{A}{PRED_A}",
        "{WHEN}{M}{DO}",
        "{WHEN}{F}{DO}",
        "{M}{DO}{TAIL_M}",
        "{F}{DO}{TAIL_F}",
        "{P}和{P}{DO}",
        "{ABOUT}",
        "{ABOUT}",
        "{ABOUT}",
        "{ABOUT}",
        "{WEATHER}{P}{DO_LATER}",
    ),
    "M": ("爸爸", "爷爷", "哥哥", "叔叔"),
    "F": ("妈妈", "奶奶", "姐姐", "妹妹"),
    "P": ("{M}", "{F}", "朋友", "医生", "工人", "店员", "客人"),
    "A": ("小狗", "小猫", "小鸡"),
    "WHEN": ("今天", "明天", "早上", "中午", "星期{DAY}", "七点", "十点", "三点一刻"),
    "DAY": ("一", "三", "天"),
    "NUM": ("一", "两", "三", "七", "十"),
    "PLACE": ("公园", "教室", "市场", "石桥", "学校"),
    "AT": ("在公园里", "在教室里", "在市场", "在家里", "在石桥上", "在学校", "在树下", "在圆桌下"),
    "DO": (
        "{AT}{HOBBY}",
        "{AT}等{P}",
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
    "DO_LATER": ("在家里{HOBBY}", "再去{PLACE}", "再{HOBBY}", "坐汽车去{PLACE}", "不去{PLACE}", "戴帽子去{PLACE}"),
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
    "WORK": ("作业", "饭", "工作", "数学"),
    "GO": ("坐汽车去{PLACE}", "坐飞机", "骑车去{PLACE}", "进教室", "进公园", "到{PLACE}去", "到家"),
    "AGAIN": ("试一次", "说一次", "吃一块", "画一个", "等一刻钟", "下一次棋", "看一次书", "输一次"),
    "ADV": ("开心", "大声", "慢慢"),
    "PRESENT": ("礼物", "椅子", "书包", "国旗", "大钟"),
    "SKILL": ("下棋", "画画", "做饭", "说话", "骑车", "玩球"),
    "HOW": ("很快", "很好", "不快", "不好", "很慢", "很开心"),
    "TAIL_M": ("他很开心", "他知道", "他有时间", "他已经到了", "他有事"),
    "TAIL_F": ("她很开心", "她知道", "她有时间", "她已经到了", "她有事"),
    "PRED_M": (
        "说他{WHEN}{HOBBY}",
        "说他{WHEN}去{PLACE}",
        "说他{SKILL}{DE}",
        "可以带他的{KIN}{HOBBY}",
        "和他的朋友{AT}{HOBBY}",
        "在等他的{KIN}",
        "{AT}看他的{THING}",
        "下棋输了他{SAD}",
        "做完事他再{HOBBY}",
    ),
    "PRED_F": (
        "说她{WHEN}{HOBBY}",
        "说她{WHEN}去{PLACE}",
        "说她{SKILL}{DE}",
        "可以带她的{KIN}{HOBBY}",
        "和她的朋友{AT}{HOBBY}",
        "在等她的{KIN}",
        "{AT}看她的{THING}",
        "下棋输了她{SAD}",
        "做完事她再{HOBBY}",
    ),
    "PRED_A": (
        "{AT}等它的食物",
        "吃完了它{AT}玩",
        "{AT}和它的朋友玩球",
        "跑得{HOW}它{SAD}",
        "的声很大它{AT}",
        "坐在椅子上等{P}",
        "{AT}它看{P}{HOBBY}",
        "是{P}的朋友它常常{AT}",
        "在等它的{KIN}",
    ),
    "DE": ("做得{HOW}", "学得{HOW}", "玩得{HOW}"),
    "KIN": ("妹妹", "朋友", "小狗", "小猫", "客人"),
    "SAD": ("不开心", "不说话", "很生气", "很开心", "再试一次"),
    "THING": ("书", "衣服", "帽子", "椅子", "作业", "画", "棋", "书包"),
    "ABOUT": (
        "这是{P}的{THING}",
        "这是{P}的新{THING}",
        "这个{PRESENT}{NUM}{MONEY}",
        "{PLACE}很近可以骑车去",
        "到{PLACE}要坐{NUM}个小时汽车",
        "{P}的座椅在{P}的{SIDE}",
        "{WHEN}有{LESSON}课",
        "{WHEN}有{LESSON}考试",
        "这座桥的石头很{BIG}",
        "教室里有{NUM}个学生",
        "{P}已经进{PLACE}了",
        "{P}不知道{P}有事",
        "{P}再等{NUM}个小时",
        "市场的{BUY}有{NUM}{MONEY}",
        "{P}的飞机{NUM}点到",
        "{P}可以坐在{P}的椅子上",
        "这个国旗很{BIG}要{NUM}{MONEY}",
    ),
    "SIDE": ("里面", "前面"),
    "MONEY": ("元", "块"),
    "LESSON": ("英语", "数学"),
    "BIG": ("大", "长", "新"),
    "WEATHER": ("下雨了", "天气很好", "天气不好", "今天有雨", "明天下雨"),
}

_SLOT = re.compile(r"\{(\w+)\}")


def sentence(rng: random.Random, symbol: str = "S") -> str:
    """Draw one sentence (hanzi, no spaces or punctuation) from ``symbol`` of the grammar."""
    return _SLOT.sub(lambda slot: sentence(rng, slot.group(1)), rng.choice(GRAMMAR[symbol]))


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

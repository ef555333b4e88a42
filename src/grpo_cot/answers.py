r"""The reader of a stated answer: the one number that an announcement's text gives, and its value.

Strict grading, rewards and the announced answers of the lenient reader (`grpo_cot.grading.lenient`) share it. It reads
as a careful person reads. Inside `<answer>`, `**18**`, `18 km/h`, `x = 18`, `\boxed{18}` and "She pays $18 for 3 days."
state 18. A list of guesses, a calculation left undone, a range, and a quantity in two units state no single number.

math-verify is the better tool for symbolic answers. It is not used, because it does the sum that a model left undone
(36/2, or the square root of 16), takes the last of a list of guesses, reads 70.000 as seventy in any locale and -$5 not
at all, needs a millisecond a completion, and sets a signal, which works on the main thread only.

Time is linear: no pattern backtracks over a long text, and a text longer than `LONGEST_NUMBER` states no answer.
"""

import functools
import itertools
import re
from fractions import Fraction

from grpo_cot.numbers import (
    CURRENCY,
    CURRENCY_SIGN,
    DIGITS,
    EXPONENT,
    FRACTION,
    LONGEST_NUMBER,
    NO_UNIT,
    NUMBER_WORD,
    PLAIN_NUMBER,
    SCALE,
    numeric_value,
    plain,
    without_formatting,
)

_NO_GROUPS = re.sub(r"\?P<\w+>", "?:", EXPONENT + FRACTION)
_SCALED = rf"(?:{SCALE}+(?:\s{DIGITS}{SCALE}+)*)?"
_HALF = r"(?:\s(?:[^\W\d]+\s)?(?:(?:and|with)\s(?:a|one)\shalf|rư[ỡở]i)\b)?"
NUMBER_TEXT = rf"(?<!\w)(?<!\d[.,])[-+]?(?:{CURRENCY_SIGN}\s?)?[-+]?{DIGITS}{_NO_GROUPS}{_SCALED}{_HALF}"
# a number inside a statement; not the 2 of "x2" or "2x", not an ordinal
NUMBER = re.compile(
    rf"{NUMBER_TEXT}(?!(?:st|nd|rd|th)\b)(?!(?-i:[abefijnoqrxyzBDEGHIOPQRSUXYZ\u03c0])(?!\w))(?:\s?%)?", re.IGNORECASE
)
DIGIT = re.compile("[0-9]")
_LETTER = re.compile(r"[^\W\d]")
_CONNECTORS = "or|and|x|times|plus|minus|maybe|hoặc|hay|và"
# words after an announced number that do not belong to it
_ASIDE = re.compile(rf"[;(]|\.\s|,\s+(?!(?:{_CONNECTORS})\b)(?=[^\W\d])|\b(?:because|since|which)\b", re.IGNORECASE)
_HEDGE = re.compile(r"\b(?:or|maybe|perhaps|possibly|hoặc|hay|có thể)\b", re.IGNORECASE)
_RIVAL_IN_WORDS = re.compile(  # "18 (or nineteen)", "18; twenty"
    rf"[\s;,.([]*(?:(?:or|maybe|perhaps|possibly|hoặc|hay|có\sthể)\s(?:\w+\s)?)?{NUMBER_WORD}\b", re.IGNORECASE
)
_LISTED = re.compile(r";|,\s*\w{1,12}\s?[:=]\s?\d")  # "side 12 cm; area 144 cm²", "A: 18, B: 20"
# what stands around a rival that stands alone: "18 (20)", but not "18 (12 + 6)"
_OPENED, _CLOSED = re.compile(r"[\s;,.([]*"), re.compile(r"\s*(?:[.;,)\]]|$)")
_REASON = {
    "en": re.compile(r"\bbecause\b", re.IGNORECASE),
    "vi": re.compile(r"\b(?:because|vì(?!\s(?:vậy|thế))|bởi|(?<!lý\s)do(?!\s(?:đó|vậy)))\b", re.IGNORECASE),
}
_CONCLUSION = re.compile(  # between a premise and its conclusion
    r",\s(?:and\s)?(?:so(?!\s(?:that|với)\b)|therefore|thus|hence|(?:vì\s)?vậy|vì\sthế|do\sđó)\b|\bnên\b", re.IGNORECASE
)
_RESULT = re.compile(  # "the number of apples after 3 days is 14"
    r"(?<!which\s)(?<!each\s)(?<!that\s)\b(?:is|are|equals|makes?|totals?|là|để\sđược|tương\sđương\svới)\s"
    rf"(?P<result>{NUMBER_TEXT}(?>(?:(?!\b(?:{_CONNECTORS})\b)[^\d=])*))$",
    re.IGNORECASE,
)
_SOLVED = re.compile(  # "20 = A", where the number stands before the last sign of equality
    rf"(?:^|[=;]|,\s|\b(?:or|so|hoặc|hay|vậy)\b)\s?(?P<result>{NUMBER_TEXT})\s?=\s?[^\W\d]\W*$", re.IGNORECASE
)
_TAKEN_BACK = re.compile(r"\d.*\b(?:wait|actually|scratch\sthat|oops|sorry|nhầm|khoan)\b.*\d", re.IGNORECASE)
_SEVERAL = re.compile(  # "x = 5, y = 18"
    rf"\b([^\W\d])\s?=\s?{NUMBER_TEXT}\s?(?:,|;|\b(?:and|or|và|hoặc)\b)\s?(?:and\s|và\s)?(?!\1)[^\W\d]\s?=",
    re.IGNORECASE,
)
_TERM = rf"{NUMBER_TEXT}(?:\s?(?:[-+*\u00d7\u00f7x]|nhân|chia|cộng|trừ)\s?|\s/\s)"
_EXPLANATION = re.compile(  # "16 hours (400/25)", "110 dollars at 20*5.5"
    rf"(?<=[\w%])\s\((?=[^()\d]*+\d[\d.,]*+[^()\d]++\d)[^()]*\)\W*$"
    rf"|\s(?:{_TERM}){{1,4}}{NUMBER_TEXT}\W*$|(?<!and\s)\bsince\b|,\s(?:which|that)\s(?:is|are)\b",
    re.IGNORECASE,
)
_PURPOSE = re.compile(  # "5 giờ để đọc 120 trang"
    r"\b(?:(?:sau|trong)\skhi|để(?!\s(?:được|có)\b)|bằng\s(?:tổng|hiệu|tích|thương|cách))\b", re.IGNORECASE
)
_INTRODUCTION = re.compile(  # "So after 3 days, " before the main clause
    r"^\W{0,9}(?:(?:so|thus|therefore|hence|then|finally|(?:vì\s)?vậy|vì\sthế|do\sđó|như\svậy)\b,?\s*)?"
    r"(?:after|in|for|with|if|when|on|at|by|over|since|given|from|during|to|sau|trong|với|nếu|khi|để)\b"
    r"[^,=]*,\s+(?=[^\W\d])",
    re.IGNORECASE,
)
# Between two numbers that together are one answer, or that are several.
_LEADING_ON = re.compile(  # words after which a further number describes the first
    r"\b(?:in|for|after|before|over|within|per|from|of|at|with|to|by|than|on|during|because|since|when|as|that|which|who"
    r"|among|between|each|every|not|through|until|left|trong|sau|trước|cho|với|mỗi|để|từ|ở|vào|của|khi|vì|do|trên|so)\b"
    r"|[([]",
    re.IGNORECASE,
)
_RIVAL_WORD = re.compile(
    r"\b(?:but|else|otherwise|alternatively|vs|nor|neither|possibly|likely|although|could|option|then|xor|if|even|nhưng"
    r"|nếu|lựa\schọn|phương\sán)\b",
    re.IGNORECASE,
)
_OPERATOR = re.compile(r"[+*^<>\u00d7\u00f7]|\d/|/\d|(?<![^\W\d])-")
_RIVAL = re.compile(
    rf"{_OPERATOR.pattern}|:(?=\d)|\b(?:{_CONNECTORS})\b|^\s*(?:[^\W\d]+\s)?(?:to|of|đến)\b", re.IGNORECASE
)
_CONNECTED = re.compile(
    rf"[+*/^:=<>\u00d7\u00f7]|(?<![^\W\d])-|\b(?:{_CONNECTORS})\b|^\s*(?:to|of|đến)\b|,\s*$", re.IGNORECASE
)
# before a number: what denies it, takes its root, makes it a bound or negative
_DENIED = re.compile(
    r"(?:\bnot(?:\s(?:equal\sto|even|exactly|simply))?|n't|\bno(?:\slonger)?|\bnever|\b(?:(?:any|every|no)thing\sbut|all\sbut|except|without|none\sof)"
    r"|\bkhông(?:\sphải)?(?:\slà)?)\s{1,9}$",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"(?:\b(?:more|less|fewer|greater|higher|lower)\sthan|\b(?:over|under|up\sto|half(?:\sof)?|twice|double|triple|root\sof"
    r"|square|log|gấp\sđôi|gấp\sba|nửa(?:\scủa)?|căn(?:\sbậc\s\w+)?(?:\scủa)?|hundreds?|thousands?|millions?"
    r"|trăm|nghìn|ngàn|triệu|tỷ)|sqrt\{?|\u221a|[\u00b1|]|\\pm|\+/-|[^\W\d]\(|-\s?\()\s{0,3}$",
    re.IGNORECASE,
)
_INEQUALITY = re.compile(r"!=|\\neq?\b|\u2260|(?<!=)>=?|<=?|[\u2264\u2265]|\\[lg](?:eq?|t)\b")
_NEGATIVE = re.compile(r"(?:\bnegative|\bâm|(?<![\d%]\s)\bminus)\s{1,9}$", re.IGNORECASE)
# after a number: what makes it part of a term
_CALCULATED = re.compile(
    r"\s*(?:[+^\u00b2\u00b3\u00d7\u00f7\u221a\u03c0]|\\(?:sqrt|pi)|\*\s*\w|!(?=\s*\w)|(?:or|x|minus|plus|cộng|trừ|nhân|chia|hoặc|hay"
    r"|squared|cubed|doubled|halved|tripled|twice|mod|choose|subtract|add|take\saway|(?:in|de)creased\sby|power|less\s\d"
    r"|point|remainder|per\s\d|dư|mũ\s\d|bình\sphương|kém|lần\s\d|phần\s(?:\d|tư|ba)|halves|thirds|fourths|fifths"
    r"|(?:is|are|was)\s(?:not|wrong|incorrect|false)|not|nếu\skhông)\b)|[^\W\d]{1,4}\d|_\d"
    rf"|\s(?!năm\b){NUMBER_WORD}(?=\W*$|\s{NUMBER_WORD})"
    r"|\s(?:[^\W\d]+\s){0,3}?(?:(?:minus|plus|divided\sby|multiplied\sby|times|over|trừ|cộng|nhân|chia|or|hoặc|hay|and|và)"
    rf"\s(?:maybe\s|perhaps\s|possibly\s|even\s|a\s|đi\s|cho\s)?{NUMBER_WORD}\b|(?:below|under)\szero\b|dưới\skhông\b)",
    re.IGNORECASE,
)
_TIME = (
    r"(?:seconds?|minutes?|hours?|days?|weeks?|week(?:day|end)s?|months?|years?|nights?|mornings?|decades?|seasons?"
    r"|semesters?|shifts?|trips?|rounds?|games?|sessions?|lessons?|classes|visits?"
    r"|giây|phút|giờ|tiếng|ngày|tuần|tháng|năm|đêm|buổi|lần|lượt|trận|chuyến|ca)\b"
)
_PEOPLE = (
    r"(?:people|persons?|friends?|students?|guests?|kids?|child(?:ren)?|adults?|members?|workers?|employees?|boys|girls"
    r"|players?|người|bạn|học\ssinh|đứa|em|khách|gia\sđình)\b"
)
_N = rf"((?:{CURRENCY_SIGN}\s?)?\d[\d.,]*+)"
_OWN = r"(?:the|these|those|her|his|their|its|our|my)"
# Numbers that place a result and are none: "after 3 weeks", "each of the 4 friends", "among 5 people", day 3, tháng 4.
_CIRCUMSTANCE = re.compile(
    r"\b(?:(?:day|week|month|year|step|page|room|level|grade|chapter|age|(?<!mỗi\s)(?:thứ|ngày|tuần|tháng|năm|lớp|bước))"
    rf"\s{_N}"
    rf"|(?:after|in|within|over|for|during|every|per|by|through|throughout|next|first|last|past|sau|trong|suốt|mỗi|qua)"
    rf"\s(?:(?:{_OWN}|all|another|about|exactly|next|first|last|past|vòng|khoảng|cả|số|hết|thời\sgian)\s){{0,3}}{_N}"
    rf"[\s-](?:[^\W\d]+\s){{0,2}}?{_TIME}(?:(?:,|\sand|\svà)?\s{_N}\s{_TIME})?"
    rf"|(?:each|all|every\sone|both|one|none|any|most|some)\sof\s(?:{_OWN}\s)?{_N}"
    rf"|(?:all|{_OWN})\s(?:other\s|remaining\s|original\s|same\s)?{_N}\s"
    rf"|(?:among|amongst|between|into|out\sof|of\sthe|giữa)\s(?:[^\W\d]+\s){{0,2}}{_N}(?!\s(?:and|to|và|đến)\s\d)"
    rf"|(?:after|before|by|from|sau\skhi|trước\skhi)\s[a-z]+ing\s(?:[^\W\d]+\s){{0,3}}{_N}|(?:with|using|bằng|với)\s(?=[{CURRENCY}]){_N}"
    rf"|(?:for|with|from|to|by|cho|với)\s(?:[^\W\d]+\s)?{_N}\s(?:[^\W\d]+\s)?{_PEOPLE}"
    rf"|(?:at|with|of|containing|holding|costing|với|giá)\s{_N}[^,.;\d]{{0,30}}?\b(?:each|apiece|per|every|mỗi)\b"
    rf"|(?:than|so\svới)\s(?:[^\s\d]+\s){{0,4}}{_N}|(?:in|by|since|năm)\s((?:19|20)\d\d)\b"
    rf"|(?:trong\s(?:tổng\s)?số|của|cả|tất\scả)\s(?:[^\W\d]+\s)?{_N}|trong\s{_N}\s{_PEOPLE}"
    rf"|(?:if|when|nếu|khi)\s[^,;.\d]*{_N}"
    rf"|to\s(?!(?:be|have|get|about|over|around|nearly|approximately|exactly)\b)[a-z]+\s(?:[^\W\d]+\s){{0,3}}{_N})"
    rf"|{_N}\s(?:[^\W\d]+\s){{1,3}}?(?:này|đó|ấy)\b",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"\b(?:no|none|nothing|zero|không\scòn|hết)\b", re.IGNORECASE)
_MONEY = re.compile(rf"\s?(?:[{CURRENCY}]|(?:dollars?|cents?|euros?|pounds?|đồng|đô|xu|đ|vn[dđ])\b)", re.IGNORECASE)
_PRICED = re.compile(r"\b(?:for|at|with|from|per|by|in|than|với|giá|từ|hơn|mỗi)\s(?:[^\W\d]+\s)?$", re.IGNORECASE)
_FAMILIES = (  # units of one measure: 2 hours 30 minutes is one quantity
    r"h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?|days?|weeks?|months?|years?|giờ|tiếng|phút|giây|ngày|tuần|tháng|năm",
    r"feet|foot|ft|inch|inches|in|yards?|miles?|km|m|cm|mm|met(?:er|re)s?|mét",
    r"lbs?|pounds?|oz|ounces?|kg|g|grams?|kilograms?|tấn|tạ|yến|cân|lạng",
    rf"[{CURRENCY}]|dollars?|cents?|euros?|pounds?|pence|đồng|đô(?:\sla)?|xu",
    r"gallons?|quarts?|pints?|cups?|l|ml|lit(?:er|re)s?|lít",
)
_MONEY_MEASURE = 3
_UNITS = tuple(re.compile(rf"\s?(?:{family})(?!\w)", re.IGNORECASE) for family in _FAMILIES)  # m is of two measures
_JOINED = re.compile(r"\s?(?:,|and|và|,\s?and)?\s?$", re.IGNORECASE)


def stated_value(answer: str, locale: str = "en") -> Fraction | None:
    r"""The value of the one number that an answer's text states; None where it states none or several.

    Raises:
        ValueError: the locale is not known.

    >>> [str(stated_value(text)) for text in ("**18**", "x = 18", "\\boxed{18}", "US$18", "She pays $18 for 3 days.")]
    ['18', '18', '18', '18', '18']
    >>> [str(stated_value(answer)) for answer in (
    ...     "18; 20", "18 (or maybe 20)", "36/2", "2 hours 30 minutes", "not 20 but 18"
    ... )]
    ['None', 'None', 'None', 'None', '18']
    """
    if (value := numeric_value(answer, locale)) is not None:
        return value
    number = None if len(answer) > LONGEST_NUMBER else stated_number(plain(answer.strip()), locale, announced=True)
    return None if number is None else numeric_value(number, locale)


@functools.lru_cache(maxsize=4096)
def gold_value(gold: str) -> Fraction | None:
    """The value of a gold, which is in plain or English notation whatever the locale of its row; None if unreadable."""
    return numeric_value(gold)


def same_answer(answer: str | None, gold: str, locale: str = "en") -> bool:
    """Whether an answer's text states the gold's value.

    >>> same_answer("$1,234.0", "1234"), same_answer("70.000", "70000", "vi"), same_answer("36/2", "18")
    (True, True, False)
    """
    if answer is None:
        return False
    value = stated_value(answer, locale)
    return value is not None and value == gold_value(gold)


def stated_number(statement: str, locale: str, *, announced: bool, computed: Fraction | None = None) -> str | None:
    """The one number that a statement gives, as it stands there: the result of its last equation, else its only number
    that is no circumstance, else the one that was `computed` before, else the only price.

    An announced statement may go on after its number ("18 apples in 2 bags"), but not to a rival ("18 or 20").
    The text must be plain (`grpo_cot.numbers.plain`).
    """
    if PLAIN_NUMBER.fullmatch(statement):
        return statement
    text = without_formatting(statement)
    if _SEVERAL.search(text) or (announced and _TAKEN_BACK.search(text.partition(". ")[0])):
        return None
    text = _without_introduction(text)
    clause = _without(_ASIDE, text) if announced else _main_clause(text, locale)
    if announced and _has_rival(clause, text[len(clause) :], locale):
        return None
    if _INEQUALITY.search(clause):
        return None
    parts = [part for part in clause.split("=") if DIGIT.search(part)]
    if not parts:
        return None
    solved = _SOLVED.search(clause)
    result = solved["result"] if solved else parts[-1]
    numbers = list(itertools.islice(NUMBER.finditer(result), 8))  # eight numbers without an equation are a list
    affirmed = [number for number in numbers if not _before(_DENIED, number)]
    number = _chosen(affirmed, result, locale, announced=announced, equation="=" in clause, computed=computed)
    if number is None or _before(_BOUND, number) or _CALCULATED.match(result, number.end()):
        return None
    bare = announced and "=" not in clause and not re.search(r"\w", result[: number.start()])
    if bare and NO_UNIT.search(result[number.end() :].strip()):
        return None
    if _in_two_units(number, numbers, result) or numeric_value(number.group(), locale) is None:
        return None
    negative = (announced and result[: number.start()].strip() == "-") or _before(_NEGATIVE, number)
    return ("-" if negative else "") + number.group().strip()


def _chosen(
    numbers: list[re.Match[str]], text: str, locale: str, *, announced: bool, equation: bool, computed: Fraction | None
) -> re.Match[str] | None:
    """The number that a clause is about; None where a careful reader could not tell."""
    if not numbers:
        return None
    described = announced or equation  # the first number is the result, and words after it describe it
    if len(numbers) > 1 and described and not re.search(r"\w", text[: numbers[0].start()]):
        return _described(numbers[0], text[numbers[0].end() : numbers[1].start()], announced=announced)
    placed = {start for match in _CIRCUMSTANCE.finditer(text) for start, _ in match.regs[1:]}
    candidates = [number for number in numbers if number.start() not in placed]
    if not candidates and _NOTHING.search(text):
        return None
    candidates = candidates or numbers
    first = candidates[0]
    if len(candidates) == 1:
        return first
    values = [numeric_value(number.group(), locale) for number in candidates]
    between = [text[one.end() : other.start()] for one, other in itertools.pairwise(candidates)]
    if len(set(values)) == 1 and not any(_OPERATOR.search(words) for words in between):
        return first
    if computed in values and not described:
        index = values.index(computed)  # and its neighbours are no rivals of it
        return None if any(map(_RIVAL.search, between[max(0, index - 1) : index + 1])) else candidates[index]
    if described:
        return _described(first, between[0], announced=announced)
    priced = [number for number in candidates if _is_money(number, text)]
    if len(priced) == 1 and not _before(_PRICED, priced[0]) and not _RIVAL.search(between[0]):
        return priced[0]
    return None


def _described(number: re.Match[str], words: str, *, announced: bool) -> re.Match[str] | None:
    """A number, if words up to the next one describe it and lead to no rival. What follows an equation is no list."""
    if _CONNECTED.search(words) or (announced and _RIVAL_WORD.search(words)):
        return None
    return number if (_LEADING_ON if announced else _LETTER).search(words) else None


def _is_money(number: re.Match[str], text: str) -> bool:
    return any(sign in number.group() for sign in CURRENCY) or _MONEY.match(text, number.end()) is not None


def _in_two_units(number: re.Match[str], numbers: list[re.Match[str]], text: str) -> bool:
    """Whether a number is a part of "2 hours 30 minutes", "5 feet and 6 inches" or "$3 and 20 cents"."""
    for one, other in itertools.pairwise(numbers):
        if number not in (one, other):
            continue
        units = {measure: found for measure, unit in enumerate(_UNITS) if (found := unit.match(text, one.end()))}
        end = max((found.end() for found in units.values()), default=one.end())
        measures = units.keys() or ({_MONEY_MEASURE} if _is_money(one, text) else set())
        joined = _JOINED.match(text[end : other.start()])
        if joined and any(_UNITS[measure].match(text, other.end()) for measure in measures):
            return True
    return False


def _has_rival(clause: str, rest: str, locale: str) -> bool:
    """Whether what follows an announced clause holds another candidate: "18; 20", "18 (or maybe 20)"."""
    number = NUMBER.search(clause)
    if number and _RIVAL_IN_WORDS.match(rest):
        return True
    for rival in itertools.islice(NUMBER.finditer(rest), 8) if number else ():
        alone = _OPENED.fullmatch(rest, 0, rival.start()) and _CLOSED.match(rest, rival.end())
        if alone or _LISTED.match(rest) or _HEDGE.search(rest, 0, rival.start()):
            return number is None or numeric_value(rival.group(), locale) != numeric_value(number.group(), locale)
    return False


def _before(words: re.Pattern[str], number: re.Match[str]) -> bool:
    """Whether such words stand right before a number."""
    return words.search(number.string, max(0, number.start() - 30), number.start()) is not None


def _without_introduction(text: str) -> str:
    for _ in range(3):
        introduction = _INTRODUCTION.match(text)
        if not introduction or not DIGIT.search(text, introduction.end()):
            break
        text = text[introduction.end() :]
    return text


def _main_clause(text: str, locale: str) -> str:
    """A statement without the reason, the explanation and the purpose of its number."""
    *_, conclusion = _CONCLUSION.split(text)
    if DIGIT.search(conclusion) and ("=" in conclusion or "=" not in text):
        text = conclusion
    text = _without(_REASON[locale], text)
    if "=" in text:
        return text
    text = _without(_EXPLANATION, text)
    result = _RESULT.search(text)
    return result["result"] if result else _without(_PURPOSE, text)


def _without(aside: re.Pattern[str], text: str) -> str:
    """A statement up to the first aside that follows a number."""
    number = NUMBER.search(text)
    match = aside.search(text, number.end()) if number else None
    return text[: match.start()] if match else text

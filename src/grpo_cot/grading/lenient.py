r"""The lenient reader: the answer that a completion states last, wherever it stands.

It looks for the last announced answer (`<answer>`, `####`, `\boxed{}`, "the answer is"), which ends the search whatever
it says, else for the number in the final statement. `grpo_cot.answers` reads the text that it finds. Unlike a
last-number extractor it gives no credit for a list of guesses, for a calculation left undone, or for a number that
merely comes last.

Time is linear: of a very long completion only the end is read, and no pattern backtracks over it.
"""

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from grpo_cot.answers import DIGIT, NUMBER, stated_number
from grpo_cot.numbers import NUMBER_WORD, numeric_value, plain, without_formatting
from grpo_cot.schema import sections

_READ = 20_000  # characters read at the end of a completion: about 5,000 tokens
_ANNOUNCEMENTS = 100  # announced answers tried, from the last
_STATEMENT = 300  # characters within which an announced answer is looked for

# The starts of a marker, in lower case. A search backwards from the end is faster than a match at every position.
_MARKER_STARTS = ("<answer>", "####", "\\boxed", "answer")
_VIETNAMESE_MARKER_STARTS = (*_MARKER_STARTS, "đáp", "kết", "câu")
_MARKER = re.compile(
    r"(?P<tag><answer>\s*+)"
    r"|(?P<rule>\#{4,}[^\S\n]*+)"
    r"|(?P<boxed>\\boxed\s*+\{)"
    r"|(?P<phrase>(?<![\w</])(?:answers?\b[^.,\n\d:=]{0,40}?(?:\b(?:is|be|are|was|equals)\b|[:=]|(?=\bcannot\b|\bcan't\b))"
    r"|(?:đáp\s(?:án|số)|kết\squả|câu\strả\slời)\b"
    r"[^.,\n\d:=]{0,40}?(?:\blà\b|[:=]|(?=\bkhông\sthể\b))))",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(  # a statement that says that there is none
    r"\b(?:can(?:not|'t|\snot)\s(?:be|say|tell|determine|find|answer|calculate|solve)|(?:not|n't)\s(?:enough|possible|know)"
    r"|impossible|insufficient|unknown|undetermined|indeterminate|undefined|unclear|no\s(?:solution|answer|way\sto\sknow)"
    r"|không\s(?:thể|đủ|xác\sđịnh|biết|có\s(?:đáp|lời)))\b",
    re.IGNORECASE,
)
_WORD = re.compile(rf"\W*(?:{NUMBER_WORD}|none|nothing|no|yes|many|không)\b", re.IGNORECASE)
_LABEL = re.compile(  # "Step 2:", "2. " or "- " before a line's own text
    r"^[^\S\n]*(?:\**(?:step|part|bước|phần)[^\S\n]+\d+\**[:.)]?\**|\d+[.)]|[-*\u2022])[^\S\n]+(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_NEW_QUESTION = re.compile(  # a base model that is done goes on to ask itself the next question
    r"\n[#*\s]{0,8}(?:question|problem|q|user|human|instruction|exercise|câu hỏi|bài toán|bài tập(?: tương tự)?)"
    r"\**[ ]?\d{0,4}\s?:",
    re.IGNORECASE,
)
_RETRACTION = re.compile(
    r"\b(?:wait|actually|correction|mistake|oops|sorry|nhầm|khoan|scratch\sthat|(?:that|this)(?:'s|\sis)\swrong|an\serror"
    r"|let\sme\s(?:correct|recompute|recalculate)|oh\sno)\b",
    re.IGNORECASE,
)
_CORRECTS = re.compile(r"\b(?:is|it's|be|answer|so|là|phải)\b|=|^[\s.,:]*[^\w\s]?\d[\d.,]*\W*$", re.IGNORECASE)
_CONDITION = re.compile(r"\b(?:if|nếu)\b[^.!?\n]*$", re.IGNORECASE)  # "If he had 4, the answer would be 10"
_UNSURE = re.compile(r"\W*(?:or|maybe|perhaps|hoặc|có\sthể)\b", re.IGNORECASE)  # begins a sentence that takes back
_NOT = re.compile(r"\b(?:not|cannot|không)\b|n't\b", re.IGNORECASE)
_DOUBT = re.compile(
    r"(?:n't|\bnot)\s(?:think|believe|say|sure)\b[^.!?\n]*$|\bwhether\b[^.!?\n]*$|\bkhông\s(?:nghĩ|tin|chắc)\b[^.!?\n]*$",
    re.IGNORECASE,
)
_METHOD = re.compile(  # "the answer is found by adding 3 to 4": what follows says how, and not which
    r"\W*(?:found|calculated|obtained|given|computed|determined\sby|by|as\sfollows|tìm|tính)\b", re.IGNORECASE
)
_TO_THE_READER = re.compile(  # a question, and a sentence to the reader
    r"\?\W*$|\b(?:hope\sthis|let\sme\sknow|feel\sfree|see\sproblem|please\s(?:provide|note))\b|^\W*note:", re.IGNORECASE
)
_LONGEST_STATEMENT = 1_000  # characters
_CONCLUDES = re.compile(
    r"\W{0,9}(?:so|thus|therefore|hence|finally|altogether|overall|in\s(?:total|all|conclusion|the\send)|as\sa\sresult"
    r"|(?:như\s|vì\s)?vậy|do\sđó|tổng\scộng|tóm\slại|kết\sluận|cuối\scùng)\b",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"[.!?]\s|[.!?)\]}]$")  # not "The answer is 1", of 18 or of 1.5
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_EQUATION = re.compile(rf"[=\u2248]\s*({NUMBER.pattern})", re.IGNORECASE)
_ANNOTATION = re.compile(r"<<[^<>\n]*>>")
_COMPUTED_WITHIN = 1_000  # characters before a statement in which its equation stands


class _Announcement(NamedTuple):
    kind: str
    text: str
    end: int  # where the announcement's text starts; a retraction may follow


def lenient_answer(completion: str, locale: str = "en", *, truncated: bool = False) -> str | None:
    r"""The answer that a completion states last, or None where none is stated.

    Of a completion that follows the schema it is the schema's answer. Otherwise an announced answer goes before the
    final statement, and the text after a retraction ("wait, ...") before both. The text after a new question that the
    model asks itself is not read. The text inside `<answer>`, after `####` or in `\boxed{}` is returned as it stands
    when it states no single number. A `truncated` completion (the token limit cut it off) breaks off in a statement
    that is not read; the last whole one counts only where it draws a conclusion ("So she has 18 apples.").

    >>> lenient_answer("12 + 7 = 19\n19 - 5 = 14\nThe answer is 14."), lenient_answer("12 + 7 = 19\n19 - 5 = 14")
    ('14', '14')
    >>> lenient_answer("So Mia will have saved $90 after 3 weeks."), lenient_answer("= 18. It cannot be determined.")
    ('$90', None)
    >>> lenient_answer("She has 18 apples in 2 bags.") is None, lenient_answer("So she has 1", truncated=True) is None
    (True, True)
    """
    if (texts := sections(completion)) is not None:
        return texts[1]
    turns = _NEW_QUESTION.split("\n" + plain(completion.lstrip()[-_READ:]))
    for number, turn in enumerate(turns, start=1):
        cut = truncated and number == len(turns)
        announcement = next(_announcements(turn), None)
        if announcement is not None:
            broken = cut and turn.endswith(announcement.text) and not _WHOLE.search(announcement.text)
            return None if broken else _announced_answer(turn, announcement, locale)
        answer = _final_statement(turn, locale, truncated=cut)
        if answer is not None:
            return answer
    return None


def _markers(turn: str) -> Iterator[re.Match[str]]:
    """The markers that announce an answer, from the last to the first."""
    lowered = turn.lower()
    last = {start: lowered.rfind(start) for start in (_MARKER_STARTS if turn.isascii() else _VIETNAMESE_MARKER_STARTS)}
    while True:
        start = max(last, key=last.__getitem__)
        if last[start] < 0:
            return
        if marker := _MARKER.match(turn, last[start]):
            yield marker
        last[start] = lowered.rfind(start, 0, last[start])


def _announcements(turn: str) -> Iterator[_Announcement]:
    """What is announced as the answer, from the last to the first. A heading and "the answer is correct" are nothing
    of the kind."""
    end = len(turn)
    for marker in itertools.islice(_markers(turn), _ANNOUNCEMENTS):
        kind = marker.lastgroup or ""
        content = turn[marker.end() : min(end, marker.end() + _STATEMENT)]
        end = marker.start()
        if kind == "tag":
            content = content.partition("</answer>")[0].partition("\n\n")[0]
        elif kind == "boxed":
            content = _balanced(content)
        else:
            line, _, rest = content.partition("\n")
            if line.strip(" \t*_:$"):
                heading = kind == "rule" and not line.startswith("- ") and _LABEL.match(line)  # "#### Step 2"
                content = "" if heading else line
            else:  # announced for the next line, which then holds the number and nothing else
                line = _LABEL.sub("", rest.strip().partition("\n")[0])
                content = line if NUMBER.fullmatch(without_formatting(line).strip(" .")) else ""
            if DIGIT.search(content) and _is_denied(turn, marker, content):
                content = ""  # "The answer cannot be 18": no answer, and no earlier one
            elif not _is_answer(content) or _CONDITION.search(turn, max(0, marker.start() - 100), marker.start()):
                continue
        yield _Announcement(kind, content.strip(), marker.end())


def _is_denied(turn: str, marker: re.Match[str], content: str) -> bool:
    """Whether words announce that a number is not the answer, or that nobody knows whether it is."""
    begins = content.lstrip().lower().startswith(("cannot", "can't", "không thể"))
    return begins or bool(_NOT.search(marker[0]) or _DOUBT.search(turn, max(0, marker.start() - 60), marker.start()))


def _is_answer(text: str) -> bool:
    """Whether a text announced by words says which the answer is, or that there is none."""
    if DIGIT.search(text):
        return not _METHOD.match(text)
    return bool(_NO_ANSWER.search(text) or _WORD.match(text) or text.strip().startswith("determined"))


def _balanced(text: str) -> str:
    """Text up to the brace that closes it."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return text[:position]
    return text


def _announced_answer(turn: str, announcement: _Announcement, locale: str) -> str | None:
    inside = len(announcement.text) if announcement.kind in ("tag", "boxed") else 0
    retraction = _RETRACTION.search(turn, announcement.end + inside)
    if retraction and _CORRECTS.search(turn[retraction.end() :]):
        answer = _final_statement(turn[retraction.end() :], locale)
        if answer is not None:
            return answer
    said = announcement.text if inside else announcement.text.partition(". ")[0]
    if _NO_ANSWER.search(turn, announcement.end + len(said)):
        return None
    answer = stated_number(announcement.text, locale, announced=True)
    if answer is None and announcement.kind != "phrase" and announcement.text:
        return announcement.text
    return answer


def _final_statement(turn: str, locale: str, *, truncated: bool = False) -> str | None:
    """The number in the last sentence that has one, or that it alone puts in bold; None where a later one says that
    there is no answer. Of a turn that was cut off only a conclusion counts."""
    if truncated:
        turn = _without_broken_sentence(turn)
    for start, sentence in _sentences(turn):
        if "=" not in sentence and _TO_THE_READER.search(sentence):
            continue
        if DIGIT.search(sentence):
            concludes = _CONCLUDES.match(sentence) if truncated else not _UNSURE.match(sentence)
            return _in_sentence(sentence, turn[:start], locale) if concludes else None
        if _NO_ANSWER.search(sentence):
            return None
    return None


def _without_broken_sentence(turn: str) -> str:
    turn = turn.rstrip()
    if turn.endswith((".", "!", "?")):
        return turn
    return turn[: max(turn.rfind("\n"), *(turn.rfind(f"{mark} ") + 1 for mark in ".!?"), 0)]


def _sentences(turn: str) -> Iterator[tuple[int, str]]:
    """The sentences of a text and where they start, from the last to the first, without the labels of their lines."""
    end = len(turn)
    while end > 0:
        start = turn.rfind("\n", 0, end) + 1
        line = turn[start:end]
        label = _LABEL.match(line)
        starts = [label.end() if label else 0, *(match.end() for match in _SENTENCE_END.finditer(line))]
        ends = [*(match.start() for match in _SENTENCE_END.finditer(line)), len(line)]
        yield from ((start + first, line[first:last]) for first, last in zip(starts[::-1], ends[::-1], strict=True))
        end = start - 1


def _in_sentence(sentence: str, before: str, locale: str) -> str | None:
    if len(sentence) > _LONGEST_STATEMENT:
        return None
    computed = _last_result(before + "".join(_ANNOTATION.findall(sentence)), locale)
    answer = stated_number(sentence, locale, announced=False, computed=computed)
    bold = re.findall(r"\*\*([^*]{1,80})\*\*", sentence)
    return stated_number(bold[0], locale, announced=False) if answer is None and len(bold) == 1 else answer


def _last_result(text: str, locale: str) -> Fraction | None:
    """The value of the last equation before a statement."""
    results = list(_EQUATION.finditer(text[-_COMPUTED_WITHIN:].replace("**", "")))
    return numeric_value(results[-1][1], locale) if results else None

"""The golden corpus: completions whose merit is plain, right ones and near misses, to hold rewards to their promises.

A near miss is what a model under a careless reward would write: tags in another order, one in the other, several
answers, empty sections, a copy of the prompt's template, words around the schema.
"""

from typing import NamedTuple

EVERYTHING = "strict soft tags integer correct correct_in_schema"
WRONG = "strict soft tags integer"
NO_INTEGER = "strict soft tags correct correct_in_schema"
NO_NUMBER = "strict soft tags"


class Golden(NamedTuple):
    """A completion, its gold answer, and which properties (`grpo_cot.rewards.promise.Property`) it has.

    `unsure` names the properties on which careful people would differ; all others it does not have.
    """

    title: str
    completion: str
    gold: str
    has: str
    unsure: str = ""
    locale: str = "en"

    def verdict(self, name: str) -> bool | None:
        """Whether it has a property; None where careful people would differ."""
        return None if name in self.unsure.split() else name in self.has.split()


REASONING = "12 + 6 = 18\nSo there are 18."


def _schema(answer: str, reasoning: str = REASONING) -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>"


_RIGHT = _schema("18")
_TEMPLATE = _schema("...", "...")

_FOLLOWING = (
    Golden("reasoning on several lines, ending at </answer>", _RIGHT, "18", EVERYTHING),
    Golden("a line break after </answer>", f"{_RIGHT}\n", "18", EVERYTHING),
    Golden("reasoning on one line", _schema("18", "12 + 6 = 18"), "18", EVERYTHING),
    Golden("a wrong answer", _schema("19"), "18", WRONG),
    Golden("the right number in the reasoning alone", _schema("6", "The answer is 18.\n18"), "18", WRONG),
    Golden("a comma in the answer", _schema("1,234"), "1234", EVERYTHING),
    Golden("a negative answer", _schema("-5"), "-5", EVERYTHING),
    Golden("a dropped sign", _schema("5"), "-5", WRONG),
    Golden("a sign too many", _schema("-18"), "18", WRONG),
    Golden("the right number within a longer one", _schema("118"), "18", WRONG),
    Golden("a number within the right one", _schema("1"), "18", WRONG),
    Golden("a whole number written as a decimal", _schema("18.0"), "18", EVERYTHING),
    Golden("a decimal answer", _schema("2.50"), "2.5", NO_INTEGER),
    Golden("a decimal for a whole number", _schema("18.5"), "18", NO_NUMBER),
    Golden("a currency sign", _schema("$18"), "18", EVERYTHING),
    Golden("a unit", _schema("18 dollars"), "18", EVERYTHING),
    Golden("a range that holds the right number", _schema("10-20"), "18", NO_NUMBER),
    Golden("a sum left undone", _schema("9+9"), "18", NO_NUMBER),
    Golden("a hedge in brackets", _schema("18 (or maybe 20)"), "18", NO_NUMBER),
    Golden("a word that multiplies", _schema("18 thousand"), "18", WRONG),
    Golden("a hundredfold", _schema("1800"), "18", WRONG),
    Golden("a hundredth", _schema("0.18"), "18", NO_NUMBER),
    Golden("a near number", _schema("17.9"), "18", NO_NUMBER),
    Golden("a wrong answer after a word of conclusion", _schema("19", "Therefore, there are 19."), "18", WRONG),
    *(Golden(f"{guess} for every problem", _schema(guess), "18", WRONG) for guess in ("0", "12", "42", "100")),
    Golden("an answer of 0", _schema("0"), "0", EVERYTHING),
    Golden("an answer of a million", _schema("1,000,000"), "1000000", EVERYTHING),
    Golden("an eighth", _schema("0.125"), "0.125", NO_INTEGER),
    Golden("a superscript, which is no integer", _schema("²"), "2", NO_NUMBER),
    Golden("words for an answer", _schema("many"), "18", NO_NUMBER),
    Golden("two numbers, the first right", _schema("18; 20"), "18", NO_NUMBER),
    Golden("two numbers, the last right", _schema("20 or 18"), "18", NO_NUMBER),
    Golden("Vietnamese thousands", _schema("70.000 đồng"), "70000", EVERYTHING, locale="vi"),
    Golden("a Vietnamese decimal", _schema("2,5"), "2.5", NO_INTEGER, locale="vi"),
    Golden("a Vietnamese decimal with the point for thousands", _schema("2.500"), "2.5", WRONG, locale="vi"),
    Golden("the schema on one line", _RIGHT.replace("\n", " "), "18", "soft integer correct correct_in_schema", "tags"),
    Golden("the schema without white space", "<reasoning>12 + 6 = 18</reasoning><answer>18</answer>", "18",
           "soft integer correct correct_in_schema", "tags"),
    Golden("the answer on the line of its tags", f"<reasoning>\n{REASONING}\n</reasoning>\n<answer>18</answer>", "18",
           "soft integer correct correct_in_schema", "tags"),
)  # fmt: skip

_UNTAGGED = (
    Golden("a bare number", "18", "18", ""),
    Golden("nothing", "", "18", ""),
    Golden("worked steps without tags", "12 + 6 = 18\nThe answer is 18.", "18", ""),
    Golden("an answer without reasoning", "<answer>\n18\n</answer>", "18", "correct"),
    Golden("reasoning outside tags", f"{REASONING}\n<answer>\n18\n</answer>", "18", "correct"),
    Golden("the first and the last tag alone", "<reasoning>\n12 + 6 = 18\n18\n</answer>", "18", ""),
    Golden("cut off before the answer", "<reasoning>\n12 + 6 = 18", "18", ""),
    Golden("cut off in the answer", _RIGHT.removesuffix("\n</answer>"), "18", ""),
    Golden("the reasoning is never closed", _RIGHT.replace("</reasoning>\n", ""), "18", "correct"),
    Golden("the reasoning is never opened", _RIGHT.removeprefix("<reasoning>\n"), "18", "correct"),
    Golden("the answer is never opened", _RIGHT.replace("<answer>\n", ""), "18", ""),
)

_AROUND = (
    Golden("words before the schema", f"Sure!\n{_RIGHT}", "18", "tags correct"),
    Golden("words after the schema", f"{_RIGHT}\nI hope that helps.", "18", "correct"),
    Golden("another number after the schema", f"{_RIGHT}\n20", "18", "correct"),
    Golden("words between the sections", _RIGHT.replace("\n<answer>", "\nSo the answer is\n<answer>"), "18",
           "tags correct"),
)  # fmt: skip

_ORDER = (
    Golden("the answer before the reasoning", f"<answer>\n18\n</answer>\n<reasoning>\n{REASONING}\n</reasoning>", "18",
           "correct"),
    Golden("the answer within the reasoning",
           f"<reasoning>\n{REASONING}\n<answer>\n18\n</answer>\n</reasoning>", "18", "correct"),
    Golden("the reasoning within the answer",
           f"<answer>\n<reasoning>\n{REASONING}\n</reasoning>\n18\n</answer>", "18", "", "correct"),
    Golden("sections that overlap", f"<reasoning>\n{REASONING}\n<answer>\n</reasoning>\n18\n</answer>", "18", "",
           "correct"),
    Golden("tags in another order", "</reasoning><answer><reasoning></answer>", "18", ""),
    Golden("tags in another order around the sections",
           f"</reasoning>\n{REASONING}\n<reasoning>\n</answer>\n18\n<answer>", "18", ""),
    Golden("a closing tag for an opening one", f"</reasoning>\n{REASONING}\n<reasoning>\n<answer>\n18\n</answer>", "18",
           "correct"),
)  # fmt: skip

_SEVERAL = (
    Golden("two answers, the first right", f"{_RIGHT}\n<answer>\n20\n</answer>", "18", ""),
    Golden("two answers, the last right", f"{_schema('20')}\n<answer>\n18\n</answer>", "18", ""),
    Golden("two answers, both right", f"{_RIGHT}\n<answer>\n18\n</answer>", "18", ""),
    Golden("an answer within the reasoning and another after it",
           _schema("18", f"{REASONING}\n<answer>\n20\n</answer>"), "18", ""),
    Golden("an answer that is opened twice", _schema("<answer>\n18"), "18", ""),
    Golden("an answer that is closed twice", _schema("18\n</answer>\n20"), "18", ""),
    Golden("two full schemas, the first right", f"{_RIGHT}\n{_schema('20')}", "18", ""),
    Golden("two full schemas, the last right", f"{_schema('20')}\n{_RIGHT}", "18", ""),
    Golden("reasoning that is opened twice", _schema("18", f"<reasoning>\n{REASONING}"), "18", "correct"),
    Golden("two sections of reasoning", f"<reasoning>\n{REASONING}\n</reasoning>\n{_RIGHT}", "18", "correct"),
)  # fmt: skip

_EMPTY = (
    Golden("no reasoning", _schema("18", ""), "18", "correct"),
    Golden("reasoning of white space", _schema("18", " \t\n "), "18", "correct"),
    Golden("reasoning of zero-width characters", _schema("18", "\u200b\u200d\ufeff"), "18", "correct"),
    Golden("reasoning of letters without a shape", _schema("18", "\u3164\u115f"), "18", "correct"),
    Golden("reasoning of an ellipsis", _schema("18", "..."), "18", "correct"),
    Golden("reasoning of the character for an ellipsis", _schema("18", "…"), "18", "correct"),
    Golden("reasoning of punctuation", _schema("18", "- - -\n!?"), "18", "correct"),
    Golden("no answer", _schema(""), "18", ""),
    Golden("an answer of zero-width characters", _schema("\u200b"), "18", ""),
    Golden("an answer of punctuation", _schema("..."), "18", ""),
    Golden("the prompt's template", _TEMPLATE, "18", ""),
    Golden("the prompt's template with the answer put in", _schema("18", "..."), "18", "correct"),
    Golden("the prompt's template, then the schema", f"{_TEMPLATE}\n{_RIGHT}", "18", ""),
    Golden("the prompt's template and the answer without tags", f"{_TEMPLATE}\nThe answer is 18.", "18", ""),
    Golden("the four tags and nothing else", "<reasoning></reasoning><answer></answer>", "18", ""),
)

GOLDEN = (*_FOLLOWING, *_UNTAGGED, *_AROUND, *_ORDER, *_SEVERAL, *_EMPTY)

# One wrong answer to the gold 18 in two lengths: of its text, by words that state nothing.
WRONG_SHORT = _schema("19", "We add and get the sum.")
WRONG_LONG = _schema("19", "We add and get the sum." + " Let us look at it once more." * 60)

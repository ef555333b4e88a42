"""Rewards with one plausible fault each, beside the promise that the fault breaks. The audit must name every one."""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from grpo_cot.answers import stated_value
from grpo_cot.rewards import completion_text, correctness, promises, soft_format
from grpo_cot.rewards.promise import Property
from grpo_cot.schema import TAGS, sections, strict_answer

Judge = Callable[..., Any]
BROKEN: dict[str, Any] = {}


def broken(what: Property, *, in_parts: bool = False) -> Callable[[Judge], Judge]:
    """Make a reward of a judgement on one completion's text (its gold, locale and tokens as further arguments)."""

    def decorate(judge: Judge) -> Judge:
        def reward(
            prompts: Sequence[Any], completions: Sequence[Any], gold: Sequence[str], locale: Sequence[str],
            completion_ids: Sequence[Sequence[int]], **columns: Any,
        ) -> list[float]:  # fmt: skip
            texts = [completion_text(completion) for completion in completions]
            rows = zip(texts, gold, locale, completion_ids, strict=True)
            return [float(judge(text, gold, locale, len(ids))) for text, gold, locale, ids in rows]

        reward.__name__ = judge.__name__
        BROKEN[judge.__name__] = promises(what, in_parts=in_parts)(reward)
        return judge

    return decorate


def equal(answer: str | None, gold: str, locale: str) -> bool:
    return answer is not None and stated_value(answer, locale) == stated_value(gold)


def answers(text: str) -> list[str]:
    return re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)


def only_answer(text: str) -> str | None:
    found = answers(text)
    return found[0] if len(found) == text.count(TAGS[2]) == text.count(TAGS[3]) == 1 else None


# Correctness, by the only <answer> pair


@broken("correct")
def within_one_per_cent(text: str, gold: str, locale: str, tokens: int) -> bool:
    value = stated_value(only_answer(text) or "", locale)
    return value is not None and abs(value - Fraction(gold)) <= abs(Fraction(gold)) / 100


@broken("correct")
def whatever_the_hundreds(text: str, gold: str, locale: str, tokens: int) -> bool:
    value = stated_value(only_answer(text) or "", locale)
    return value is not None and Fraction(gold) in (value, value * 100, value / 100)


@broken("correct")
def with_the_sum_done(text: str, gold: str, locale: str, tokens: int) -> bool:
    terms = [stated_value(term, locale) for term in (only_answer(text) or "").split("+")]
    return None not in terms and sum(term for term in terms if term) == Fraction(gold)


@broken("correct")
def without_what_is_in_brackets(text: str, gold: str, locale: str, tokens: int) -> bool:
    return equal(re.sub(r"\(.*?\)", "", only_answer(text) or ""), gold, locale)


@broken("correct")
def whatever_multiplies(text: str, gold: str, locale: str, tokens: int) -> bool:
    return equal((only_answer(text) or "").replace("thousand", ""), gold, locale)


@broken("correct")
def also_for_a_favourite_number(text: str, gold: str, locale: str, tokens: int) -> bool:
    return equal(only_answer(text), gold, locale) or (only_answer(text) or "").strip() == "42"


@broken("correct")
def never_for_zero(text: str, gold: str, locale: str, tokens: int) -> bool:
    return Fraction(gold) != 0 and equal(only_answer(text), gold, locale)


@broken("correct")
def by_the_last_of_several_answers(text: str, gold: str, locale: str, tokens: int) -> bool:
    return bool(answers(text)) and equal(answers(text)[-1], gold, locale)


@broken("correct")
def by_the_first_of_several_answers(text: str, gold: str, locale: str, tokens: int) -> bool:
    return bool(answers(text)) and equal(answers(text)[0], gold, locale)


@broken("correct")
def by_any_of_several_answers(text: str, gold: str, locale: str, tokens: int) -> bool:
    return any(equal(answer, gold, locale) for answer in answers(text))


@broken("correct")
def by_any_number_anywhere(text: str, gold: str, locale: str, tokens: int) -> bool:
    return any(equal(found, gold, locale) for found in re.findall(r"-?\d[\d.,]*", text))


@broken("correct")
def by_the_last_number_anywhere(text: str, gold: str, locale: str, tokens: int) -> bool:
    found = re.findall(r"-?\d[\d.,]*", text)
    return bool(found) and equal(found[-1].rstrip("."), gold, locale)


@broken("correct")
def by_what_follows_the_opening_tag(text: str, gold: str, locale: str, tokens: int) -> bool:
    return "<answer>" in text and equal(text.split("<answer>")[-1].split("</answer>")[0], gold, locale)


@broken("correct")
def by_a_part_of_the_text(text: str, gold: str, locale: str, tokens: int) -> bool:
    return gold in (only_answer(text) or "")


@broken("correct")
def by_text_and_not_by_value(text: str, gold: str, locale: str, tokens: int) -> bool:
    return (only_answer(text) or "").strip() == gold


@broken("correct")
def by_any_number_in_the_answer(text: str, gold: str, locale: str, tokens: int) -> bool:
    return any(equal(found, gold, locale) for found in re.findall(r"-?\d[\d.,]*", only_answer(text) or ""))


@broken("correct")
def whatever_the_sign(text: str, gold: str, locale: str, tokens: int) -> bool:
    value = stated_value(only_answer(text) or "", locale)
    return value is not None and abs(value) == abs(stated_value(gold) or Fraction(0))


@broken("correct")
def to_the_nearest_whole_number(text: str, gold: str, locale: str, tokens: int) -> bool:
    value = stated_value(only_answer(text) or "", locale)
    return value is not None and int(value) == int(stated_value(gold) or Fraction(0))


@broken("correct")
def whatever_the_locale(text: str, gold: str, locale: str, tokens: int) -> bool:
    return equal(only_answer(text), gold, "en")


@broken("correct")
def with_half_the_pay_for_any_number(text: str, gold: str, locale: str, tokens: int) -> float:
    value = stated_value(only_answer(text) or "", locale)
    return 0.0 if value is None else 1.0 if value == stated_value(gold) else 0.5


@broken("correct")
def only_in_the_schema(text: str, gold: str, locale: str, tokens: int) -> bool:
    return equal(strict_answer(text), gold, locale)


# Correctness in the schema


@broken("correct_in_schema")
def without_the_schema(text: str, gold: str, locale: str, tokens: int) -> bool:
    return equal(only_answer(text), gold, locale)


@broken("correct_in_schema")
def with_the_schema_somewhere(text: str, gold: str, locale: str, tokens: int) -> bool:
    found = re.search(r"<reasoning>.+?</reasoning>\s*<answer>(.+?)</answer>", text, re.DOTALL)
    return found is not None and equal(found[1], gold, locale)


@broken("correct_in_schema")
def with_empty_reasoning(text: str, gold: str, locale: str, tokens: int) -> bool:
    found = re.fullmatch(r"\s*<reasoning>.*</reasoning>\s*<answer>(.*)</answer>\s*", text, re.DOTALL)
    return found is not None and equal(only_answer(text), gold, locale)


# Format


@broken("soft")
def with_the_tags_in_any_order(text: str, gold: str, locale: str, tokens: int) -> bool:
    return all(text.count(tag) == 1 for tag in TAGS)


@broken("soft")
def by_start_and_end_alone(text: str, gold: str, locale: str, tokens: int) -> bool:
    return text.strip().startswith(TAGS[0]) and text.strip().endswith(TAGS[3])


@broken("soft")
def with_words_around_it(text: str, gold: str, locale: str, tokens: int) -> bool:
    cut = text[max(text.find(TAGS[0]), 0) : text.rfind(TAGS[3]) + len(TAGS[3])]
    return sections(cut) is not None


@broken("soft")
def with_words_before_it(text: str, gold: str, locale: str, tokens: int) -> bool:
    return sections(text[max(text.find(TAGS[0]), 0) :]) is not None


@broken("soft")
def with_empty_sections(text: str, gold: str, locale: str, tokens: int) -> bool:
    pattern = r"\s*<reasoning>[^<]*</reasoning>\s*<answer>[^<]*</answer>\s*"
    return re.fullmatch(pattern, text) is not None


@broken("soft")
def with_sections_of_dots(text: str, gold: str, locale: str, tokens: int) -> bool:
    pattern = r"\s*<reasoning>\s*[^<\s][^<]*</reasoning>\s*<answer>\s*[^<\s][^<]*</answer>\s*"
    return re.fullmatch(pattern, text) is not None


@broken("soft")
def with_several_schemas(text: str, gold: str, locale: str, tokens: int) -> bool:
    return all(sections(part + TAGS[3]) for part in text.strip().removesuffix(TAGS[3]).split(TAGS[3]))


@broken("soft")
def with_tags_that_occur_twice(text: str, gold: str, locale: str, tokens: int) -> bool:
    pattern = r"\s*<reasoning>.*\w.*</reasoning>\s*<answer>.*\w.*</answer>\s*"
    return re.fullmatch(pattern, text, re.DOTALL) is not None


@broken("soft")
def on_one_line_alone(text: str, gold: str, locale: str, tokens: int) -> bool:
    return sections(text) is not None and re.search(r"<reasoning>.*</reasoning>", text) is not None


@broken("strict")
def without_a_look_at_line_breaks(text: str, gold: str, locale: str, tokens: int) -> bool:
    return sections(text) is not None


@broken("strict")
def without_a_look_at_the_answers_line_breaks(text: str, gold: str, locale: str, tokens: int) -> bool:
    return sections(text) is not None and text.startswith("<reasoning>\n") and "\n</reasoning>\n<answer>" in text


@broken("strict")
def without_dotall(text: str, gold: str, locale: str, tokens: int) -> bool:
    return re.fullmatch(r"<reasoning>\n.*\w.*\n</reasoning>\n<answer>\n.*\w.*\n</answer>\s*", text) is not None


@broken("strict")
def with_a_line_break_at_the_end(text: str, gold: str, locale: str, tokens: int) -> bool:
    return sections(text) is not None and text.endswith("\n")


# Tags


def in_place(text: str) -> bool:
    places = [text.find(tag) for tag in TAGS]
    return all(text.count(tag) == 1 for tag in TAGS) and places == sorted(places)


@broken("tags", in_parts=True)
def counted_without_order(text: str, gold: str, locale: str, tokens: int) -> float:
    trailing = len(text.rpartition(TAGS[3])[2].rstrip()) if TAGS[3] in text else 0
    return 0.125 * sum(text.count(tag) == 1 for tag in TAGS) - 0.001 * trailing


@broken("tags", in_parts=True)
def counted_though_they_occur_twice(text: str, gold: str, locale: str, tokens: int) -> float:
    trailing = len(text.rpartition(TAGS[3])[2].rstrip()) if TAGS[3] in text else 0
    return 0.125 * sum(tag in text for tag in TAGS) - 0.001 * trailing


@broken("tags", in_parts=True)
def counted_without_a_look_at_what_follows(text: str, gold: str, locale: str, tokens: int) -> float:
    return 0.5 if in_place(text) else 0.125


@broken("tags", in_parts=True)
def counted_around_empty_sections(text: str, gold: str, locale: str, tokens: int) -> float:
    return 0.5 if in_place(text) and text.rstrip().endswith(TAGS[3]) else 0.125


@broken("tags", in_parts=True)
def less_by_every_character(text: str, gold: str, locale: str, tokens: int) -> float:
    return 0.5 - 0.001 * len(text) if in_place(text) else 0.0


# Whole numbers


@broken("integer")
def with_decimals(text: str, gold: str, locale: str, tokens: int) -> bool:
    return stated_value(strict_answer(text) or "", locale) is not None


@broken("integer")
def outside_the_schema(text: str, gold: str, locale: str, tokens: int) -> bool:
    value = stated_value(only_answer(text) or "", locale)
    return value is not None and value.denominator == 1


@broken("integer")
def of_digits_as_python_sees_them(text: str, gold: str, locale: str, tokens: int) -> bool:
    return (strict_answer(text) or "").isdigit()


@broken("integer")
def with_superscripts(text: str, gold: str, locale: str, tokens: int) -> bool:
    answer = strict_answer(text) or ""
    value = stated_value(answer, locale)
    return answer.isdigit() or (value is not None and value.denominator == 1)


@broken("integer")
def only_of_right_answers(text: str, gold: str, locale: str, tokens: int) -> bool:
    value = stated_value(strict_answer(text) or "", locale)
    return value is not None and value.denominator == 1 and equal(strict_answer(text), gold, locale)


@broken("integer")
def in_english_alone(text: str, gold: str, locale: str, tokens: int) -> bool:
    value = stated_value(strict_answer(text) or "")
    return value is not None and value.denominator == 1


# Length


@broken("correct")
def with_a_penalty_that_falls_with_length(text: str, gold: str, locale: str, tokens: int) -> float:
    (right,) = correctness([""], [text], [gold], [locale])
    return right or -1000.0 / (1 + tokens)


@broken("correct")
def with_a_price_for_every_character(text: str, gold: str, locale: str, tokens: int) -> float:
    (right,) = correctness([""], [text], [gold], [locale])
    return right or -0.001 * len(text)


@broken("soft")
def with_more_for_more_words(text: str, gold: str, locale: str, tokens: int) -> float:
    (paid,) = soft_format([""], [text])
    return paid * (1 + len(text.split()))


@broken("correct_in_schema")
def with_a_price_for_overlong_completions(text: str, gold: str, locale: str, tokens: int) -> float:
    right = equal(strict_answer(text), gold, locale)
    return right - (tokens > 2000) * (not right)


@broken("tags", in_parts=True)
def half_for_any_text(text: str, gold: str, locale: str, tokens: int) -> float:
    return 0.5 if sections(text) else 0.49

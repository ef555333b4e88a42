"""Where a prompt ends and a completion begins: what the chat template has opened for the model.

A template may end its prompts in `<reasoning>`, so that the model writes no opening tag; and a model may think in
`<think>...</think>` before it answers, whether its template opens that or not. So what is judged (by rewards, readers
and people) is not what was written, and neither is a worked solution what is to be written. This module says what is,
and no reward and no reader needs to know.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from grpo_cot.recipes.recipe import PromptSection

REASONING = "<reasoning>"  # the first of grpo_cot.schema.TAGS, on which the step prepare does not depend
THOUGHT, THOUGHT_END = "<think>", "</think>"
_OPENED = re.compile(rf"(?:{REASONING}|{THOUGHT})\s*\Z")


def opened(prompt: str) -> str:
    r"""The tag that a rendered prompt ends in, with the white space after it: `<reasoning>`, `<think>`, or nothing.

    >>> opened("<|assistant|>\n<reasoning>\n"), opened("<|assistant|>\n<think>\n\n</think>\n\n")
    ('<reasoning>\n', '')
    """
    match = _OPENED.search(prompt)
    return match[0] if match else ""


class Opening(NamedTuple):
    """What the prompts' end opens (see `opened`), and whether the recipe strips thoughts."""

    text: str
    strips: bool

    @property
    def keeps(self) -> bool:
        """Whether what is judged is what was written, whatever that is."""
        return not self.text and not self.strips

    def judged(self, written: str) -> str:
        r"""What a completion is judged on: what the prompt opened and what the model wrote, less its thought.

        >>> Opening("<reasoning>\n", strips=False).judged("2 + 3 = 5\n</reasoning>")
        '<reasoning>\n2 + 3 = 5\n</reasoning>'
        >>> Opening("<think>\n", strips=True).judged("Adding.\n</think>\n\nIt is 5.")
        'It is 5.'
        """
        return self.parts(written)[1]

    def parts(self, written: str) -> tuple[str | None, str]:
        r"""A completion's thought, None where it has none or none is stripped, and what it is judged on.

        A thought stands at the start. One that never ends, as where the length limit cut it off, leaves nothing to be
        judged: an answer in it is none.

        >>> Opening("", strips=True).parts("<think>Adding.</think>\n5"), Opening("", strips=True).parts("<think>5")
        (('Adding.', '5'), ('5', ''))
        """
        start = written.lstrip()
        thinks = self.text.startswith(THOUGHT) or start.startswith(THOUGHT) or THOUGHT_END in start
        if not self.strips or not thinks:
            return None, self._opened(written)
        thought, end, rest = start.rpartition(THOUGHT_END)  # the last one: some models think again
        thought = (thought if end else rest).removeprefix(THOUGHT)
        return thought.strip(), self._opened(rest.lstrip() if end else "")

    def _opened(self, written: str) -> str:
        """What the prompt opened and the model wrote; a model that writes the opened tag again opens it once."""
        if not self.text.startswith(REASONING) or written.lstrip().startswith(REASONING):
            return written
        return self.text + written

    def target(self, completion: str) -> str:
        r"""What the model must write so that it is judged on this completion in the schema, and has not thought.

        >>> Opening("<reasoning>\n", strips=False).target("<reasoning>\n5\n</reasoning>")
        '5\n</reasoning>'
        >>> Opening("<think>\n", strips=True).target("<reasoning>\n5\n</reasoning>")
        '</think>\n\n<reasoning>\n5\n</reasoning>'
        """
        if self.text.startswith(THOUGHT):
            return f"{THOUGHT_END}\n\n{completion}"
        if not self.text:
            return completion
        rest = completion.removeprefix(REASONING)
        return rest if self.text == REASONING else rest.lstrip()


def opening(tokenizer: "PreTrainedTokenizerBase", conversation: Sequence[Message], section: "PromptSection") -> Opening:
    """What the recipe's prompts open, seen in one of their conversations: all of them end alike."""
    prompt = tokenizer.apply_chat_template(
        list(conversation), tokenize=False, add_generation_prompt=True, **section.chat_template_kwargs
    )
    return Opening(opened(prompt), section.thinking == "strip")


def check_template(tokenizer: "PreTrainedTokenizerBase", prompts: Iterable[str], section: "PromptSection") -> None:
    """Check that the recipe says what becomes of thoughts that rendered prompts open.

    Raises:
        InputError: it refuses thoughts, and a prompt opens one; or it strips them, and would not see their end.
    """
    if section.thinking == "refuse":
        if any(opened(prompt).startswith(THOUGHT) for prompt in prompts):
            raise InputError(
                f"the chat template opens {THOUGHT} at the end of the prompt, and prompt.thinking is 'refuse': set "
                "prompt.thinking: strip, which takes thoughts out of what is judged, or, where the template knows it, "
                "prompt.chat_template_kwargs: {enable_thinking: false}"
            )
        return
    ids = tokenizer(THOUGHT_END, add_special_tokens=False)["input_ids"]
    if THOUGHT_END not in tokenizer.decode(ids, skip_special_tokens=True):
        raise InputError(
            f"prompt.thinking is 'strip', but {THOUGHT_END} is a special token of this tokenizer, which is not in the "
            'text of a completion, so that no thought would end; mark it "special": false in tokenizer.json'
        )


def refuse_thoughts(written: Sequence[str], section: "PromptSection") -> None:
    """Refuse a model that thinks before it answers where the recipe does not expect it.

    Raises:
        InputError: the recipe refuses thoughts, and some of these completions begin with one.
    """
    thoughts = sum(text.lstrip().startswith(THOUGHT) for text in written)
    if section.thinking == "refuse" and thoughts:
        raise InputError(
            f"{thoughts} of the model's {len(written)} samples begin with {THOUGHT}, and prompt.thinking is "
            "'refuse': set prompt.thinking: strip, which takes thoughts out of what is judged, or, where the template "
            "knows it, prompt.chat_template_kwargs: {enable_thinking: false}"
        )

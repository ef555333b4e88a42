"""The programs on the merged model's card: each loads it and answers a problem as the evaluation did.

A test runs them as they stand on the card.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message
from grpo_cot.vllm.arguments import sampling_parameters

# A pipeline cleans up spaces unless told not to, which the evaluation does not.
CAUSAL = """\
from transformers import pipeline

{messages}
sampling = {sampling}
generator = pipeline("text-generation", model="{place}")
[answer] = generator(
    messages, **sampling, tokenizer=generator.tokenizer,
    return_full_text=False, clean_up_tokenization_spaces=False{template},
)
print(answer["generated_text"])
"""
SEQ2SEQ = """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

{messages}
sampling = {sampling}
tokenizer = AutoTokenizer.from_pretrained("{place}")
model = AutoModelForSeq2SeqLM.from_pretrained("{place}")
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"{template}
)
output = model.generate(**prompt, **sampling, tokenizer=tokenizer)
print(tokenizer.decode(output[0], skip_special_tokens=True))
"""
VLLM = """\
from vllm import LLM, SamplingParams

{messages}
sampling = SamplingParams(**{sampling})
if __name__ == "__main__":  # vLLM starts processes, which may import this program
    [output] = LLM(model="{place}").chat(messages, sampling{template})
    print(output.outputs[0].text)
"""


def transformers_program(
    place: str, architecture: Literal["causal", "seq2seq"], messages: Sequence[Message], sampling: Mapping[str, Any],
    chat_template_kwargs: Mapping[str, Any],
) -> str:  # fmt: skip
    """A program for plain Transformers; `place` is the model's folder or its repository on the Hub.

    `sampling` holds GenerationConfig's parameters. Transformers has no pipeline for encoder-decoders.
    """
    said = {"do_sample": False, **sampling}  # a pipeline draws where nobody says that it should not
    if architecture == "seq2seq":
        template = "".join(f", {name}={value!r}" for name, value in chat_template_kwargs.items())
        return SEQ2SEQ.format(place=place, messages=_list(messages), sampling=said, template=template)
    template = f", tokenizer_encode_kwargs={dict(chat_template_kwargs)}" if chat_template_kwargs else ""
    return CAUSAL.format(place=place, messages=_list(messages), sampling=said, template=template)


def vllm_program(
    place: str, architecture: Literal["causal", "seq2seq"], messages: Sequence[Message], sampling: Mapping[str, Any],
    chat_template_kwargs: Mapping[str, Any],
) -> str | None:  # fmt: skip
    """The same for vLLM; None where vLLM has no counterpart of a sampling parameter, or of an encoder-decoder."""
    if architecture == "seq2seq":
        return None
    try:
        parameters = sampling_parameters(sampling, "evaluate.sampling")
    except InputError:
        return None
    if parameters.get("stop"):
        parameters["include_stop_str_in_output"] = True  # as Transformers does
    template = f", chat_template_kwargs={dict(chat_template_kwargs)}" if chat_template_kwargs else ""
    return VLLM.format(place=place, messages=_list(messages), sampling=parameters, template=template)


def _list(messages: Sequence[Message]) -> str:
    """The messages as a statement of Python, one a line."""
    return "\n".join(["messages = [", *(f"    {dict(message)}," for message in messages), "]"])

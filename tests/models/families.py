"""Chat templates in the manner of public model families, each with the special tokens that its tokenizer has.

They are written for these tests; what they share with the public ones is where a turn begins and ends, which token the
tokenizer calls its end, and what becomes of a system message.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from support import ROOT

from grpo_cot.models.tokenizers import load_tokenizer

TINY = ROOT / "assets/tiny/model"


class Family(NamedTuple):
    """`end` is the token that ends a turn, `eos` what the tokenizer's own files call the end token; `prompt` is what a
    prompt ends in."""

    template: str
    tokens: list[str]
    eos: str
    end: str
    system: Literal["taken", "refused", "left out", "default"] = "taken"
    prompt: str = ""


def turns(each: str, begin: str = "", prompt: str = "", before: str = "", after: str = "") -> str:
    """A template: `begin`, every message in the form `each`, and `prompt` where an answer is asked for."""
    return (
        f"{{{{ '{begin}' }}}}{before}{{% for message in messages %}}{each}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ '{prompt}' }}}}{{% else %}}{{{{ '{after}' }}}}{{% endif %}}"
    )


CHATML = "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
CHATML_TOKENS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
GEMMA = (
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' "
    "+ message.content | trim + '<end_of_turn>\\n' }}"
)
GEMMA_TOKENS = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "\n\n"]
REFUSE = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DEFAULT = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe helpful.<|im_end|>\\n' }}{% endif %}"
FOLD = (  # the system message becomes the beginning of the first question
    "{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}"
)
FAMILIES = {
    "chatml": Family(turns(CHATML, prompt="<|im_start|>assistant\\n"), CHATML_TOKENS, "<|im_end|>", "<|im_end|>"),
    # A base with the template of a chat model: its tokenizer's end token ends documents.
    "chatml-on-a-base": Family(
        turns(CHATML, prompt="<|im_start|>assistant\\n"), CHATML_TOKENS, "<|endoftext|>", "<|im_end|>"
    ),
    "smollm2": Family(
        turns(CHATML, before=DEFAULT, prompt="<|im_start|>assistant\\n"), CHATML_TOKENS, "<|im_end|>", "<|im_end|>",
        "default",
    ),
    "llama3": Family(
        turns(
            "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim "
            "+ '<|eot_id|>' }}",
            "<|begin_of_text|>", "<|start_header_id|>assistant<|end_header_id|>\\n\\n",
        ),
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|end_of_text|>", "<|eot_id|>",
    ),
    "gemma2": Family(
        turns(GEMMA, "<bos>", "<start_of_turn>model\\n", REFUSE), GEMMA_TOKENS, "<eos>", "<end_of_turn>", "refused"
    ),
    "gemma3": Family(
        turns(
            GEMMA.replace("message.content | trim", "(first if loop.first else '') + message.content | trim"),
            "<bos>", "<start_of_turn>model\\n", FOLD,
        ),
        GEMMA_TOKENS, "<eos>", "<end_of_turn>",
    ),
    "phi3-first": Family(  # it ends a whole conversation in the end token, and knows no system message
        turns(
            "{% if message.role != 'system' %}{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}"
            "{% endif %}",
            prompt="<|assistant|>\\n", after="<|endoftext|>",
        ),
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"], "<|endoftext|>", "<|end|>", "left out",
    ),
    "phi4": Family(
        turns(
            "{{ '<|im_start|>' + message.role + '<|im_sep|>' + message.content + '<|im_end|>' }}",
            prompt="<|im_start|>assistant<|im_sep|>",
        ),
        [*CHATML_TOKENS, "<|im_sep|>"], "<|endoftext|>", "<|im_end|>",
    ),
    "mistral-v0.3": Family(
        turns(
            "{% if message.role == 'user' %}{{ '[INST] ' + (first if loop.last else '') + message.content }}"
            "{{ '[/INST]' }}{% else %}{{ ' ' + message.content | trim + eos_token }}{% endif %}",
            "<s>", before=FOLD,
        ),
        ["<s>", "</s>", "[INST]", "[/INST]"], "</s>", "</s>",
    ),
    "llama2": Family(
        turns(
            "{% if message.role == 'user' %}{{ bos_token + '[INST] ' + (first if loop.first else '') + message.content "
            "+ ' [/INST]' }}{% else %}{{ ' ' + message.content + ' ' + eos_token }}{% endif %}",
            before=FOLD,
        ),
        ["<s>", "</s>"], "</s>", "</s>",
    ),
    "deepseek-r1": Family(
        turns(
            "{% if message.role == 'system' %}{{ message.content }}{% elif message.role == 'user' %}"
            "{{ '<|User|>' + message.content }}{% else %}"
            "{{ '<|Assistant|>' + message.content.split('</think>')[-1] + '<|end_of_sentence|>' }}{% endif %}",
            "<|begin_of_sentence|>", "<|Assistant|><think>\\n",
        ),
        ["<|begin_of_sentence|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>"], "<|end_of_sentence|>",
        "<|end_of_sentence|>", prompt="<think>\n",
    ),
    "olmo": Family(
        turns(
            "{{ '<|' + message.role + '|>\\n' + message.content }}{% if message.role == 'assistant' %}"
            "{{ eos_token }}{% endif %}{% if not loop.last or message.role != 'assistant' %}{{ '\\n' }}{% endif %}",
            "<|endoftext|>", "<|assistant|>\\n",
        ),
        ["<|endoftext|>"], "<|endoftext|>", "<|endoftext|>",
    ),
    "granite": Family(
        turns(
            "{{ '<|start_of_role|>' + message.role + '<|end_of_role|>' + message.content + '<|end_of_text|>\\n' }}",
            prompt="<|start_of_role|>assistant<|end_of_role|>",
        ),
        ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"], "<|end_of_text|>", "<|end_of_text|>",
    ),
    "zephyr": Family(
        turns("{{ '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}", prompt="<|assistant|>\\n"),
        ["<s>", "</s>"], "</s>", "</s>",
    ),
    "vicuna": Family(
        turns(
            "{% if message.role == 'user' %}{{ (first if loop.first else '') + 'USER: ' + message.content + ' ' }}"
            "{% else %}{{ 'ASSISTANT: ' + message.content + eos_token }}{% endif %}",
            prompt="ASSISTANT:", before=FOLD,
        ),
        ["<s>", "</s>"], "</s>", "</s>",
    ),
    "glm4": Family(  # nothing ends a turn but the beginning of the next one
        turns("{{ '<|' + message.role + '|>\\n' + message.content }}", "[gMASK]<sop>", "<|assistant|>\\n"),
        ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"], "<|endoftext|>", "<|user|>",
    ),
    "command-r": Family(
        turns(
            "{{ '<|START_OF_TURN_TOKEN|><|' + message.role + '|>' + message.content + '<|END_OF_TURN_TOKEN|>' }}",
            "<BOS>", "<|START_OF_TURN_TOKEN|><|assistant|>",
        ),
        ["<BOS>", "<EOS>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"], "<EOS>", "<|END_OF_TURN_TOKEN|>",
    ),
    "command-r7b": Family(  # an answer is closed, and then its turn
        turns(
            "{{ '<|START_OF_TURN_TOKEN|><|' + message.role + '|>' }}{% if message.role == 'assistant' %}"
            "{{ '<|START_RESPONSE|>' + message.content + '<|END_RESPONSE|>' }}{% else %}{{ message.content }}"
            "{% endif %}"
            "{{ '<|END_OF_TURN_TOKEN|>' }}",
            "<BOS>", "<|START_OF_TURN_TOKEN|><|assistant|>",
        ),
        ["<BOS>", "<|START_OF_TURN_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"],
        "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>",
    ),
    "phi4-mini": Family(  # the end token directly after the last turn's end, and after no other
        turns(
            "{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}", prompt="<|assistant|>",
            after="<|endoftext|>",
        ),
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"], "<|endoftext|>", "<|end|>",
    ),
    "gpt-oss": Family(  # earlier answers end otherwise than the last one, which is the one that is written
        turns(
            "{{ '<|start|>' + message.role + '<|message|>' + message.content }}"
            "{{ '<|return|>' if message.role == 'assistant' and loop.last else '<|end|>' }}",
            prompt="<|start|>assistant<|message|>",
        ),
        ["<|start|>", "<|message|>", "<|end|>", "<|return|>", "<|endoftext|>"], "<|endoftext|>", "<|return|>",
    ),
    "plain": Family(turns("{{ message.content + '\\n\\n' }}"), ["<|endoftext|>"], "<|endoftext|>", "<|endoftext|>"),
}  # fmt: skip


def tokenizer_of(family: Family, folder: Path) -> Any:
    """The embedded tokenizer with the family's tokens and template, saved in a folder and loaded as the steps do."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.add_special_tokens({"additional_special_tokens": family.tokens})
    beginnings = [token for token in ("<s>", "<bos>", "<BOS>", "<|begin_of_text|>") if token in family.tokens]
    tokenizer.bos_token = beginnings[0] if beginnings else None
    tokenizer.eos_token = family.eos
    tokenizer.chat_template = family.template
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)

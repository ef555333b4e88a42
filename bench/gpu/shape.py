"""Random weights in a real model's shape, and prompts of the longest length that a recipe allows."""

import itertools
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, set_seed

from grpo_cot.common.files import Row
from grpo_cot.memory.architecture import architecture
from grpo_cot.models.loading import DEVICE
from grpo_cot.models.tokenizers import load_tokenizer
from grpo_cot.problems.generators import problems
from grpo_cot.prompts import map_rows
from grpo_cot.recipes.recipe import PromptSection

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """This process's environment for one of another, which finds the project, and the packages that this one found."""
    found = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": found}


def tokenizer_folder() -> Path:
    """Qwen2.5's tokenizer where TOKENIZERS_DIR has it, else the embedded base's: ids differ, tensors do not."""
    given = Path(os.environ.get("TOKENIZERS_DIR", "")) / "qwen2.5"
    return given if (given / "tokenizer.json").is_file() else ROOT / "assets/tiny/model"


def random_base(source: str, folder: Path) -> Path:
    """A base of the shape that `sources/bases/SOURCE.yaml` describes, in bfloat16, drawn with a fixed seed."""
    configuration, _ = architecture(ROOT, source)
    tokenizer = load_tokenizer(tokenizer_folder())
    if tokenizer.chat_template is None:
        tokenizer.chat_template = load_tokenizer(ROOT / "assets/tiny/model").chat_template
    configuration.eos_token_id, configuration.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    configuration.bos_token_id = None
    set_seed(1)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(configuration, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def longest_prompts(base: Path, section: PromptSection, count: int) -> list[Row]:
    """Prompts of word problems, each as long as `max_prompt_length` lets it be, to within one sentence."""
    tokenizer = load_tokenizer(base)
    stream = problems("train", 7)
    found: list[Row] = []
    for number in range(count):
        row = {"id": str(number), "question": "", "gold": "0", "locale": "en", "solution": None}
        for problem in itertools.islice(stream, section.max_prompt_length):
            longer = row | {"question": f"{row['question']} {problem.question}".strip(), "gold": str(problem.value)}
            if not map_rows([longer], tokenizer, section)[0]:
                break
            row = longer
        found += map_rows([row], tokenizer, section)[0]
    return found

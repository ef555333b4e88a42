"""Proof that the merged model is the trained one: both, loaded from disk in one process, read the same texts.

Importing this module imports no torch, so that this process and the one that merges import it at the same time.
"""

import re
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import Message
from grpo_cot.recipes.recipe import MergeSection

if TYPE_CHECKING:
    import torch


@contextmanager
def parity_process() -> Iterator[Callable[..., tuple[dict[str, Any], int]]]:
    """A fresh process; yields a call of `parity` there, which gives its figures and its most bytes above the imports.

    Two models are in memory there, so that the process that merged needs no room for them. Its imports run while the
    caller does its own.

    Raises:
        InputError: a model cannot be loaded, or the system ended the process.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(_import)
            yield lambda *arguments: pool.submit(_measured, *arguments).result()
    except BrokenProcessPool:
        raise InputError(
            "the process that compares the merged model with the trained one was ended from outside, as systems do "
            "for lack of memory: it holds both models at once; make room for them and start again"
        ) from None


def _import() -> None:
    import grpo_cot.models.generation
    import grpo_cot.models.loading  # noqa: F401


def _measured(*arguments: Any) -> tuple[dict[str, Any], int]:
    imported = resident_memory()
    return parity(*arguments), peak_memory() - imported


def parity(
    model_json: Path, merged_folder: Path, conversations: Sequence[Sequence[Message]],
    chat_template_kwargs: Mapping[str, Any], section: MergeSection,
) -> dict[str, Any]:  # fmt: skip
    """Compare the trained model with the merged one, loaded from disk by plain Transformers.

    Both compute in the type that training computed in, so that the figures show the merge and not the arithmetic. The
    trained model answers every prompt greedily; both models then read that text. Returned: `token_agreement`, the share
    of the answers' tokens at which both would choose the same next token, and `logit_difference`, the mean over prompts
    of ||merged - trained|| / ||trained|| of the answer's logits.

    Raises:
        InputError: the trained model is missing or corrupt.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from grpo_cot.models.generation import encode, generate
    from grpo_cot.models.loading import DEVICE, load

    trained, tokenizer, description = load(model_json)
    loader = AutoModelForSeq2SeqLM if trained.config.is_encoder_decoder else AutoModelForCausalLM
    dtype = getattr(torch, description.model.dtype)
    merged = loader.from_pretrained(merged_folder, dtype=dtype, device_map={"": DEVICE}).eval()
    prompts = encode(tokenizer, conversations, chat_template_kwargs)
    greedy = {"do_sample": False, "max_new_tokens": section.new_tokens}
    answers = generate(trained, tokenizer, prompts, greedy, batch_size=32, seed=0, progress="parity")
    agreeing = tokens = 0
    differences = []
    with torch.inference_mode():
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = tokenizer(answer.text + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
            texts = [torch.tensor([part], device=trained.device) for part in (prompt, ids)]
            expected, actual = (answer_logits(model, *texts) for model in (trained, merged))
            agreeing += int((actual.argmax(-1) == expected.argmax(-1)).sum())
            tokens += expected.shape[1]
            differences.append(float((actual - expected).norm() / expected.norm()))
    return {
        "prompts": len(conversations), "tokens": tokens, "token_agreement": agreeing / tokens,
        "logit_difference": sum(differences) / len(differences),
    }  # fmt: skip


def answer_logits(model: Any, prompt: "torch.Tensor", answer: "torch.Tensor") -> "torch.Tensor":
    """Logits (1, answer tokens, vocabulary) for every token of an answer (1, tokens) to a prompt (1, tokens)."""
    import torch

    if model.config.is_encoder_decoder:
        logits = model(input_ids=prompt, labels=answer).logits
    else:
        logits = model(input_ids=torch.cat([prompt, answer], dim=1)).logits[:, prompt.shape[1] - 1 : -1]
    wide: torch.Tensor = logits.float()
    return wide


def gate(figures: dict[str, Any], section: MergeSection, quantized: bool) -> bool:
    """Whether parity holds.

    On the original base of a quantized training it need not: that is another model by choice, and publishing asks.

    Raises:
        InputError: parity fails where it must hold.
    """
    holds = bool(
        figures["token_agreement"] >= section.token_agreement
        and figures["logit_difference"] <= section.logit_difference
    )
    if not holds and not (section.base == "original" and quantized):
        raise InputError(
            f"the merged model is not the trained one: {figures['token_agreement']:.2%} of greedy tokens agree "
            f"(merge.token_agreement asks for {section.token_agreement:.2%}) and logits differ by "
            f"{figures['logit_difference']:.2%} (merge.logit_difference allows {section.logit_difference:.2%}); "
            "try merge.dtype: float16, or look at what the adapter targets"
        )
    return holds


def resident_memory() -> int:
    """Bytes of this process that are in memory now, pages of mapped files included."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """The most bytes of this process that have been in memory at once, pages of mapped files included.

    Linux says it of this program alone. `getrusage`, for other systems, includes the process before it became this
    program: a small process that a large one started would appear as large.
    """
    status = Path("/proc/self/status")
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.is_file() else None
    if match:
        return int(match[1]) * 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)

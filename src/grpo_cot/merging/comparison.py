"""The merged model beside the trained one: their weights, and their logits on the same texts.

The trained model is the base and its adapter, which PEFT applies and nobody has merged; the merged one is loaded from
disk by plain Transformers. One model at a time is in memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from grpo_cot.common.files import Message
from grpo_cot.merging import stored
from grpo_cot.merging.logits import Reading, read, shares
from grpo_cot.models.generation import encode, generate
from grpo_cot.models.loading import DEVICE, load
from grpo_cot.recipes.recipe import MergeSection


class Trained(NamedTuple):
    """What a merged model is compared with."""

    texts: list[tuple[list[int], list[int]]]  # prompts and the trained model's answers, as token ids
    base: Reading
    trained: Reading
    rounded: Reading  # of the trained model, with its weights rounded to the stored type
    own: Reading  # of the trained model, in the type that training computed in
    columns: dict[str, stored.Columns]
    digests: dict[str, str]
    otherwise: str | None  # the first layer whose base is not the one that training computed with
    copies: bool  # whether modules are trained whole beside the adapter: its columns are not all that was trained


def parity(
    model_json: Path, merged_folder: Path, conversations: Sequence[Sequence[Message]],
    chat_template_kwargs: Mapping[str, Any], section: MergeSection,
) -> dict[str, Any]:  # fmt: skip
    """Compare the trained model with the merged one.

    The trained model answers every prompt greedily, in the arithmetic that it was trained in. All else is in float32,
    on the weights as they are stored. Returned:

    - `prompts`, `tokens`: how many conversations, and how many tokens their answers have;
    - `token_agreement`: the share of those tokens at which both would choose the same next token;
    - `effect`: ||trained - base|| / ||base|| of the answers' logits;
    - `kept`: the share of that effect that the merged model has: the projection of merged - base on trained - base;
    - `left_over`: the part of merged - base beside it; `beyond_rounding`: ||merged - rounded||, where rounded is the
      trained model with its weights rounded to the stored type; `arithmetic`: the change between the trained model in
      its own type and in float32. Each is relative to the effect, and like `kept` None where training changed no logit;
    - `misplaced`, `layer`, `layer_kept` and `weights_kept`, as in `grpo_cot.merging.stored.Stored`;
    - `changed`: the first tensor that training left alone and the merge did not, or None;
    - `dequantized_otherwise`: the first layer whose base is not the one that training computed with, or None.

    Raises:
        InputError: the trained model is missing or corrupt.
    """
    trained = examine(model_json, conversations, chat_template_kwargs, section)
    return {"prompts": len(conversations), **compare(trained, merged_folder, section)}


def examine(
    model_json: Path, conversations: Sequence[Sequence[Message]], chat_template_kwargs: Mapping[str, Any],
    section: MergeSection,
) -> Trained:  # fmt: skip
    """The trained model's answers, logits and weights, and those of its base.

    Raises:
        InputError: the trained model is missing or corrupt.
    """
    model, tokenizer, description = load(model_json)
    dtype = getattr(torch, section.dtype)
    prompts = encode(tokenizer, conversations, chat_template_kwargs)
    greedy = {"do_sample": False, "max_new_tokens": section.new_tokens}
    answers = generate(model, tokenizer, prompts, greedy, batch_size=32, seed=0, progress="parity")
    texts = [
        (prompt, tokenizer(answer.text + tokenizer.eos_token, add_special_tokens=False)["input_ids"])
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    own = read(model, texts, "trained, in its own type")
    held = stored.base_columns(stored.plain(model)) if description.quantization else {}
    del model
    exact = stored.in_float32(description, model_json.parent / description.path)
    columns, digests = stored.columns(stored.plain(exact)), stored.digests(stored.plain(exact), dtype)
    trained = read(exact, texts, "trained")
    otherwise, copies = stored.otherwise(held, columns), stored.has_copies(stored.plain(exact))
    if description.kind == "adapter":
        with exact.disable_adapter():
            base = read(exact, texts, "base")
    exact = stored.round_merged(exact, dtype)
    rounded = read(exact, texts, "trained, rounded")
    del exact
    if description.kind == "full":
        base = read(stored.load_in_float32(Path(description.base), description), texts, "base")
    return Trained(texts, base, trained, rounded, own, columns, digests, otherwise, copies)


def compare(trained: Trained, merged_folder: Path, section: MergeSection) -> dict[str, Any]:
    """The figures of `parity` for a merged model."""
    dtype = getattr(torch, section.dtype)
    merged = _load(merged_folder)
    reading, digests = read(merged, trained.texts, "merged"), stored.digests(merged, dtype)
    alone = trained.digests
    layers = stored.compare(trained.columns, merged, dtype)._asdict() | (
        {"weights_kept": None} if trained.copies else {}
    )
    return {
        "tokens": len(reading.choices),
        "token_agreement": float((reading.choices == trained.trained.choices).float().mean()),
        **shares(trained.base, trained.trained, reading, trained.rounded, trained.own),
        **layers,
        "changed": next((name for name in sorted(alone) if digests.get(name) != alone[name]), None),
        "dequantized_otherwise": trained.otherwise,
    }


def _load(folder: Path) -> Any:
    """A merged model as plain Transformers loads it, in float32."""
    configuration = AutoConfig.from_pretrained(folder)
    loader = AutoModelForSeq2SeqLM if configuration.is_encoder_decoder else AutoModelForCausalLM
    return loader.from_pretrained(folder, dtype=torch.float32, device_map={"": DEVICE}).eval()

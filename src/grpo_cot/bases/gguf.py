"""A GGUF file as a model in the Hub's layout: Transformers reads it and unpacks its weights, once."""

from pathlib import Path

from grpo_cot.bases.gguf_tokenizer import read_tokenizer
from grpo_cot.common.errors import InputError, naming


def unpack(file: Path, output: Path, named: str) -> None:
    """Write the model, in bfloat16, its tokenizer and its chat template into a folder.

    The same file gives the same bytes. What the file calls the end token may be wrong, and is left so:
    `grpo_cot.bases.examination` finds it.

    Raises:
        InputError: the file cannot be read, its tokenizer is of a kind that is not read exactly, or Transformers finds
            too few weights in it.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        with naming(named):
            tokenizer = read_tokenizer(file)
        model, loading = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )  # fmt: skip
    except InputError:
        raise
    except Exception as error:  # a file from anywhere: its readers raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{named}: this GGUF file cannot be read ({reason})") from None
    if absent := sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]])):
        raise InputError(f"{named}: this GGUF file lacks {len(absent)} weights of its model, {absent[0]} first")
    tokenizer.save_pretrained(output)
    model.save_pretrained(output)

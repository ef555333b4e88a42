"""A GGUF file as a model in the Hub's layout: Transformers reads it and unpacks its weights, once."""

from pathlib import Path

from grpo_cot.common.errors import InputError


def unpack(file: Path, output: Path, named: str) -> None:
    """Write the model, in bfloat16, its tokenizer and its chat template into a folder.

    The same file gives the same bytes. What the tokenizer calls its end token may be wrong in such files, and is left
    so: `grpo_cot.bases.examination` finds it.

    Raises:
        InputError: Transformers cannot read the file, or finds too few weights in it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model, loading = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # a file from anywhere: its readers raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{named}: Transformers cannot read this GGUF file ({reason})") from None
    if absent := sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]])):
        raise InputError(f"{named}: this GGUF file lacks {len(absent)} weights of its model, {absent[0]} first")
    # The files call for a cleaning that is for other kinds of tokenizers; Transformers would say at each use that it
    # leaves it out.
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.save_pretrained(output)
    model.save_pretrained(output)

"""A merged model in vLLM, as somebody else would load it: `python bench/gpu/reload.py MODEL PROMPTS.jsonl`.

The last line is a JSON object: seconds until it was loaded, and tokens that it wrote greedily to four prompts.
"""

import json
import sys
import time
from pathlib import Path

from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

from grpo_cot.common.files import read_jsonl


def main() -> None:
    """Load and ask."""
    model, prompts = map(Path, sys.argv[1:])
    started = time.perf_counter()
    engine = LLM(model=str(model), max_model_len=2048, gpu_memory_utilization=0.5)
    seconds = time.perf_counter() - started
    answers = engine.chat(
        [row["messages"] for row in read_jsonl(prompts)[:4]], SamplingParams(temperature=0.0, max_tokens=32)
    )
    tokens = sum(len(answer.outputs[0].token_ids) for answer in answers)
    print(json.dumps({"loading_seconds": seconds, "tokens": tokens}))


if __name__ == "__main__":
    main()

"""What this card can do at most: matrix products in bfloat16, and copies within its memory.

    python bench/gpu/ceilings.py [--size 8192]

The last line is a JSON object: `matrix_tflops` (a product of two square matrices of random numbers; zeros would be
faster) and `copy_bytes_per_second` (bytes read and written by copying 4 GiB).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from grpo_cot.models.loading import DEVICE

REPEATS = 10


def seconds(work: Callable[[], object]) -> float:
    """The median time of a piece of device work, after three that warm up."""
    times = []
    for number in range(3 + REPEATS):
        started = time.perf_counter()
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        if number >= 3:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192)
    size = parser.parse_args().size
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
    product = seconds(lambda: left @ right)
    source = torch.empty(size * size * 64, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source))
    print(
        json.dumps({"matrix_tflops": 2 * size**3 / product / 1e12, "copy_bytes_per_second": 2 * source.numel() / copy})
    )


if __name__ == "__main__":
    main()

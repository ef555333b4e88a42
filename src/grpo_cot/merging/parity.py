"""The gate that a merged model must pass, and the process in which it is compared with the trained one.

Importing this module imports no torch, so that this process and the one that merges import it at the same time.
"""

import math
import re
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from grpo_cot.common.errors import InputError
from grpo_cot.recipes.recipe import MergeSection

MISPLACED = 0.01  # share of a layer's weights; docs/measured.md has what right merges and wrong ones were seen to have
BEYOND_ROUNDING = 0.01  # of the effect of training on the logits: sums in another order round a few weights otherwise
MUCH = 0.9  # the share of the effect under which a merge says how much it loses


@contextmanager
def parity_process() -> Iterator[Callable[..., tuple[dict[str, Any], int]]]:
    """A fresh process; yields a call of `comparison.parity` there: its figures, and its most bytes above the imports.

    One model at a time is in memory there, in float32, and none of the process that merged. Its imports run while the
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
            "for lack of memory: it holds one model at a time in float32 (4 bytes a weight); make room and start again"
        ) from None


def _import() -> None:
    import grpo_cot.merging.comparison  # noqa: F401


def _measured(*arguments: Any) -> tuple[dict[str, Any], int]:
    from grpo_cot.merging.comparison import parity

    imported = resident_memory()
    return parity(*arguments), peak_memory() - imported


def gate(figures: Mapping[str, Any], section: MergeSection, quantized: bool) -> bool:
    """Whether the merged model is the trained one, but for the rounding of its type.

    On the original base of a quantized training it need not be: that is another model by choice, and publishing asks.

    Raises:
        InputError: it is not, where it must be.
    """
    fault = difference(figures, section.dtype)
    if fault is None:
        return True
    if section.base == "original" and quantized:
        return False
    raise InputError(
        f"the merged model is not the trained one: {fault}; see that base and adapter are those of the training, and "
        "train again if they are not; what training wrote can be used as it is"
    )


def difference(figures: Mapping[str, Any], dtype: str) -> str | None:
    """The first difference between the trained and the merged model that rounding does not explain, in words."""
    if name := figures["dequantized_otherwise"]:
        return f"the base's {name} was dequantized otherwise than in training"
    if name := figures["changed"]:
        return f"{name} is not as training left it"
    if figures["misplaced"] > MISPLACED:
        kept = "" if figures["layer_kept"] is None else f" and it keeps {figures['layer_kept']:.0%} of its adapter"
        return (
            f"of the weights of {figures['layer']}, {figures['misplaced']:.0%} are not the {dtype} nearest to the "
            f"trained ones (rounding explains {MISPLACED:.0%}){kept}"
        )
    beyond = figures["beyond_rounding"]
    if beyond is not None and not math.isfinite(beyond):  # such figures are in no order
        return (
            f"its logits are no finite numbers: a weight is larger than {dtype} can hold, where bfloat16 and float32 "
            "can, or the training diverged"
        )
    if beyond is not None and beyond > BEYOND_ROUNDING:
        return (
            f"its logits are off by {beyond:.1%} of the change that training made, beyond the rounding of the trained "
            f"weights to {dtype} (at most {BEYOND_ROUNDING:.0%} is right); they keep {figures['kept']:.1%} of it"
        )
    return None


def loss(figures: Mapping[str, Any], dtype: str) -> str | None:
    """A sentence where storing in the type loses much of the training, with the way out; else None."""
    if figures["kept"] is None or figures["kept"] >= MUCH or dtype == "float32":
        return None
    return (
        f"Stored in {dtype}, the model keeps {figures['kept']:.0%} of the change that training made in its logits; "
        "merge.dtype float32 keeps all of it, and so does what training wrote"
    )


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

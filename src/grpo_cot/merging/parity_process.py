"""The process in which parity is checked; importing this imports no torch."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from grpo_cot.files import InputError
from grpo_cot.merging.process_memory import peak_memory, resident_memory


@contextmanager
def parity_process() -> Iterator[Callable[..., tuple[dict[str, Any], int]]]:
    """A fresh process; yields what calls `parity` there, with its figures and the most bytes that it
    held above its imports.

    Two models are in memory there, so that the process that merged needs no room for them. It does its imports at
    once, while the caller does its own.

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
    import grpo_cot.merging.parity  # noqa: F401


def _measured(*arguments: Any) -> tuple[dict[str, Any], int]:
    from grpo_cot.merging.parity import parity

    imported = resident_memory()
    return parity(*arguments), peak_memory() - imported

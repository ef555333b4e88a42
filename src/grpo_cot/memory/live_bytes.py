"""How many bytes of tensors are alive, followed operation by operation: on a CPU, and on tensors without content."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Autograd does these in place, but not while a mode like this one is entered: adding up two gradients of one tensor
# (torch/csrc/autograd/input_buffer.cpp), and putting a part's gradient into zeros (gather and index in
# torch/csrc/autograd/FunctionsManual.cpp). Their first argument then counts as gone when the result is there.
IN_PLACE = (torch.ops.aten.add.Tensor, torch.ops.aten.scatter_add.default, torch.ops.aten.index_put.default)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, counts the storage of every tensor that an operation takes or makes, until it is freed.

    `part(tensor, operation)` names the part of a storage at its first occurrence. `peaks` holds for every moment (see
    `moment`) the bytes by part at their maximum. Allocations within a kernel are not seen.
    """

    def __init__(self, part: Callable[[torch.Tensor, Any], str]) -> None:
        """Count nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peaks: dict[str, dict[str, int]] = {}
        self._part = part
        self._alive: dict[int, tuple[weakref.ref[torch.UntypedStorage] | None, int, str]] = {}
        self._parts: Counter[str] = Counter()
        self._total = self._most = 0
        self._moment = ""

    def moment(self, name: str) -> None:
        """Begin the moment of that name, which can come again; its peak is the highest of all its times."""
        self._moment = name
        self._most = sum(self.peaks.get(name, {}).values())
        self._compare()

    def assign(self, tensors: Iterable[torch.Tensor], part: str) -> None:
        """Count these tensors as a part of that name, whatever their part before."""
        for tensor in tensors:
            self._see(tensor, part)
            storage = tensor.untyped_storage()
            reference, size, before = self._alive[storage._cdata]
            if before != part:
                self._alive[storage._cdata] = (reference, size, part)
                self._parts[before] -= size
                self._parts[part] += size
        self._compare()

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Never count these tensors; they must outlive this object's use."""
        for tensor in tensors:
            self._alive[tensor.untyped_storage()._cdata] = (None, 0, "")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count its tensors."""
        result = func(*args, **(kwargs or {}))
        if func in IN_PLACE and _computes_gradients():
            self._give_up(args[0])
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf, None, func)
        self._compare()
        return result

    def _see(self, tensor: torch.Tensor, part: str | None, operation: Any = None) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or tensor.device.type == "meta":
            return
        part = part or self._part(tensor, operation)
        size = storage.nbytes()
        self._alive[key] = (weakref.ref(storage, partial(self._freed, key)), size, part)
        self._parts[part] += size
        self._total += size

    def _give_up(self, tensor: torch.Tensor) -> None:
        """Count a tensor no more, though it is alive."""
        key = tensor.untyped_storage()._cdata
        if key in self._alive:
            reference, size, part = self._alive[key]
            self._alive[key] = (reference, 0, part)
            self._parts[part] -= size
            self._total -= size

    def _freed(self, key: int, _: Any) -> None:
        _, size, part = self._alive.pop(key)
        self._parts[part] -= size
        self._total -= size

    def _compare(self) -> None:
        if self._total > self._most:
            self._most = self._total
            self.peaks[self._moment] = {part: size for part, size in self._parts.items() if size}


def _computes_gradients() -> bool:
    return not torch.is_grad_enabled() and torch._C._current_graph_task_id() != -1

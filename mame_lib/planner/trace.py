"""What a computation would hold in memory, found by running it on tensors without data.

The networks of a planned run are built with fake tensors (shape, dtype and strides, no numbers), and one forward and
backward pass goes through the real code of the networks, checkpointing included. A ledger notes each storage when it
appears and strikes it out when the last tensor that uses it is gone. SD 1.5 takes a few seconds and no memory.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ACTIVATIONS, GRADIENTS, COPIES = "activations", "gradients", "autocast copies"
# The lists of autocast, as far as our networks use them: products in half precision and, on a GPU, norms in float32.
LOW = ("linear", "conv2d", "scaled_dot_product_attention")
HIGH: dict[str, tuple[str, ...]] = {"cpu": (), "cuda": ("group_norm", "layer_norm")}


class Ledger(TorchDispatchMode):
    """Bytes alive inside the block by kind, and the same at the moment when their sum was largest.

    Storages of `known` tensors (weights, inputs) are not counted. A storage is an activation, unless it is the gradient
    of one of `parameters`, or was given another name by `name`.
    """

    def __init__(self, known: Iterable[Tensor], parameters: Iterable[nn.Parameter] = ()) -> None:
        super().__init__()
        self.known = {_key(tensor) for tensor in known}
        self.kinds: dict[int, str] = {}
        self.watched: dict[int, Any] = {}  # a reference that nobody holds would not call back
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.parameters = list(parameters)
        self.hooks: list[Any] = []

    def __enter__(self) -> Ledger:
        self.hooks = [p.register_post_accumulate_grad_hook(self._gradient) for p in self.parameters]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._enter(tensor)
        return made

    def _enter(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key in self.known or key in self.watched:
            return
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        self.watched[key] = weakref.ref(storage, lambda _: self._leave(key, size))
        self.kinds[key] = ACTIVATIONS
        self.live[ACTIVATIONS] += size
        self._compare()

    def _leave(self, key: int, size: int) -> None:
        self.watched.pop(key, None)
        self.live[self.kinds.pop(key)] -= size

    def name(self, tensor: Tensor, kind: str) -> None:
        """Move the storage of a tensor to another kind."""
        key = _key(tensor)
        if key in self.kinds and self.kinds[key] != kind:
            size = tensor.untyped_storage().nbytes()
            self.live[self.kinds[key]] -= size
            self.live[kind] += size
            self.kinds[key] = kind
            self._compare()

    def _gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.name(parameter.grad, GRADIENTS)

    def _compare(self) -> None:
        if self.live.total() >= self.peak.total():
            self.peak = Counter(self.live)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def autocast_of(device_kind: str, dtype: torch.dtype, ledger: Ledger) -> Iterator[None]:
    """Inside the block, networks compute as under the autocast of a device that need not be there, without its cache.

    Matrix products and convolutions take half-precision copies of weights and inputs; on a GPU normalizations take
    float32 ones. A copy lives as long as the backward pass wants it. float32 changes nothing.
    """

    def half(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        made = value.to(dtype)
        if isinstance(value, nn.Parameter):
            ledger.name(made, COPIES)
        return made

    def full(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    with ExitStack() as stack:
        if dtype != torch.float32:
            for names, cast in ((LOW, half), (HIGH[device_kind], full)):
                for name in names:
                    stack.enter_context(_replaced(name, cast))
        yield


@contextmanager
def _replaced(name: str, cast: Callable[[Any], Any]) -> Iterator[None]:
    """A function of torch.nn.functional whose arguments are cast first."""
    plain = getattr(F, name)

    def casting(*args: Any, **kwargs: Any) -> Any:
        return plain(*map(cast, args), **{key: cast(value) for key, value in kwargs.items()})

    setattr(F, name, casting)
    try:
        yield
    finally:
        setattr(F, name, plain)

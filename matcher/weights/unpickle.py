"""Unpickle descriptions of tensors without running anything that the pickle names.

The `CheckpointUnpickler` knows an ordered dict, torch's storage types and its tensor rebuilders;
every other name becomes an inert `Placeholder` and is never imported. Tensors stay descriptions:
`matcher.weights.torch_archive` reads their numbers. The one sanctioned use of `pickle` for
checkpoints.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

MAX_TENSORS = 10_000
MAX_OPCODES = 2_000_000
MAX_TUPLES = 50_000
"""Tuples nested deeper than some 100,000 crash Python where it hashes them."""

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
}
TUPLE_OPCODES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
REFUSED_OPCODES = frozenset({"EXT1", "EXT2", "EXT4", "INST", "OBJ", "BYTEARRAY8", "NEXT_BUFFER"})


class Placeholder:
    """Stands for anything that the reader does not know. It takes what unpickling does to an
    object and ignores it."""

    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> Placeholder:
        return object.__new__(cls)

    def __call__(self, *_: object, **__: object) -> Placeholder:
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    append = extend = add = __setstate__


class Items(dict):
    """An ordered dict whose pickled attributes, such as the metadata of a module, are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class Storage:
    """A flat run of numbers in the archive."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class TensorView:
    """A strided view of a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.size)

    @property
    def end(self) -> int:
        """Elements of the storage up to the last one that is used."""
        if 0 in self.size:
            return 0
        steps = ((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        return self.offset + sum(steps) + 1


class Name:
    """A known name of the pickle: a callable, or a value, that unpickling cannot alter."""

    __slots__ = ("call", "value")

    def __init__(self, call: Callable[..., object] | None = None, value: object = None) -> None:
        self.call = call
        self.value = value

    def __call__(self, *arguments: object) -> object:
        if self.call is None:
            raise ValueError("a storage type is called")
        return self.call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("the state of a known name is set")


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> TensorView:
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Storage) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor is described by other things than a storage and counts")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise ValueError(f"a tensor has size {size} and stride {stride}")
    return TensorView(storage, offset, size, stride)


class CheckpointUnpickler(pickle.Unpickler):
    """Unpickle descriptions of tensors; everything unknown becomes a `Placeholder`."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return Items
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return Name(lambda data, *_: data)
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return Name(_rebuild_tensor)
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return Name(value=STORAGES[name])
        return Placeholder

    def persistent_load(self, pid: object) -> object:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError("a persistent id that is not a storage")
        kind, key, _, numel = pid[1:5]
        if not isinstance(kind, Name) or type(key) is not str or type(numel) is not int:
            return Placeholder()
        if not isinstance(kind.value, torch.dtype):
            raise ValueError("a storage of an unknown type")
        return Storage(kind.value, key, numel)


def unpickle_state_dict(data: bytes) -> dict[str, TensorView]:
    """The state dict in a pickle: its entry ``state_dict`` or ``model``, else the dict itself.

    Raises:
        ValueError: no such dict, or an entry that is not a plain tensor.
        OverflowError: more operations or tensors than the limits of this module.
        Exception: whatever unpickling damaged data raises.
    """
    _check_opcodes(data)
    root = CheckpointUnpickler(io.BytesIO(data)).load()
    if not isinstance(root, dict):
        raise ValueError("it holds no dict of tensors; save model.state_dict() instead")
    state = root.get("state_dict", root.get("model", root))
    if not isinstance(state, dict) or not state:
        raise ValueError("its state dict is empty or not a dict")
    if len(state) > MAX_TENSORS:
        raise OverflowError(f"it holds more than {MAX_TENSORS} tensors")
    for key, value in state.items():
        if type(key) is not str or not isinstance(value, TensorView):
            shown = repr(key[:80]) if type(key) is str else f"of type {type(key).__name__}"
            raise ValueError(f"entry {shown} of its state dict is not a plain tensor")
    return state


def _check_opcodes(data: bytes) -> None:
    """Refuse what makes the unpickler itself run out of memory or of stack."""
    tuples = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in REFUSED_OPCODES:
            raise ValueError(f"pickle opcode {opcode.name}")
        if opcode.name in MEMO_OPCODES and int(str(argument)) > len(data):
            raise ValueError("a memo index beyond the end of the pickle")
        tuples += opcode.name in TUPLE_OPCODES
        if count > MAX_OPCODES or tuples > MAX_TUPLES:
            raise OverflowError("its pickle has too many operations")

"""Checkpoints that an attacker, or a broken disk, might hand over."""

import collections
import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

GOLDEN = Path(__file__).parents[1] / "golden" / "loftr_quadtree_b_small.ckpt"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


class Storage:
    def __init__(self, numel: Any = 4, key: Any = "0", kind: Any = torch.FloatStorage) -> None:
        self.pid = ("storage", kind, key, "cpu", numel)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None


def tensor(storage: Any, offset: Any = 0, size: Any = (4,), stride: Any = (1,)) -> Call:
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage, offset, size, stride, False, collections.OrderedDict())


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def archive(
    data: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    compression: int = zipfile.ZIP_STORED,
    byteorder: bytes = b"little",
) -> bytes:
    """A torch zip checkpoint of a pickle; one storage of four floats unless others are given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("x/data.pkl", data)
        file.writestr("x/byteorder", byteorder)
        for key, content in ({"0": bytes(16)} if storages is None else storages).items():
            file.writestr(f"x/data/{key}", content)
    return buffer.getvalue()


def state(value: Any) -> bytes:
    return archive(pickled({"state_dict": {"weight": value}}))


def _two_pickles() -> bytes:
    buffer = io.BytesIO(state(tensor(Storage())))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("y/data.pkl", pickled({}))
    return buffer.getvalue()


def _twice() -> bytes:
    data = state(tensor(Storage()))
    return data.replace(b"x/byteorder", b"x/data.pkl\x00")[: len(data)]


def _encrypted() -> bytes:
    data = bytearray(state(tensor(Storage())))
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    return bytes(data)


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        file.addfile(tarfile.TarInfo("../../escape"), io.BytesIO())
    return buffer.getvalue()


def _legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _built(*prefix: bytes) -> bytes:
    """A pickle that sets the state ``{"__code__": 1}`` of what `prefix` pushes."""
    return (
        b"\x80\x02}X\x01\x00\x00\x00a"
        + b"".join(prefix)
        + b"N}X\x08\x00\x00\x00__code__K\x01s\x86bs."
    )


def checkpoints(sentinel: Path) -> dict[str, bytes]:
    """Torch checkpoints; what they try to run would touch `sentinel`."""
    touch = f"touch {sentinel}"
    calls = {
        "os.system": Call(os.system, touch),
        "eval": Call(eval, f"open({str(sentinel)!r}, 'w')"),
        "exec": Call(exec, f"open({str(sentinel)!r}, 'w')"),
        "open for writing": Call(open, str(sentinel), "w"),
        "subprocess": Call(subprocess.Popen, ["touch", str(sentinel)]),
        "socket": Call(socket.create_connection, ("127.0.0.1", 9)),
        "rmtree": Call(shutil.rmtree, str(sentinel.parent)),
        "import": Call(__import__, "this"),
        "torch.load": Call(torch.load, str(GOLDEN)),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "call of a storage type": Call(torch.FloatStorage, 4),
    }
    good = tensor(Storage())
    tensors = {
        "offset beyond the storage": tensor(Storage(), offset=1),
        "negative offset": tensor(Storage(), offset=-1),
        "negative stride": tensor(Storage(), offset=3, stride=(-1,)),
        "stride beyond the storage": tensor(Storage(), stride=(2,)),
        "repeated to a terabyte": tensor(Storage(), size=(2**40,), stride=(0,)),
        "repeated to 2^80": tensor(Storage(), size=(2**40, 2**40), stride=(0, 0)),
        "size of text": tensor(Storage(), size=("4",)),
        "more strides than sizes": tensor(Storage(), stride=(1, 1)),
        "storage larger than its bytes": tensor(Storage(numel=5)),
        "storage of another type": tensor(Storage(kind=torch.DoubleStorage)),
        "storage of no type": tensor(Storage(kind=os.system)),
        "key out of the archive": tensor(Storage(key="../../../etc/passwd")),
        "key of a number": tensor(Storage(key=0)),
        "list for a storage": tensor([1.0, 2.0, 3.0, 4.0]),
    }
    instantiator = {"hyper_parameters": {"_instantiator": "os.system", "command": touch}}
    class_path = {"hyper_parameters": {"_class_path": "subprocess.Popen", "args": ["touch"]}}
    whole = GOLDEN.read_bytes()
    return {
        **{f"calls {name}": state(call) for name, call in calls.items()},
        **{name: state(value) for name, value in tensors.items()},
        "_instantiator": archive(pickled(instantiator)),
        "_class_path": archive(pickled(class_path)),
        "_target_": archive(pickled({"state_dict": {"_target_": "os.system", "_args_": [touch]}})),
        "state of a rebuilder": archive(_built(b"ctorch._utils\n_rebuild_tensor_v2\n")),
        "state of a placeholder class": archive(_built(b"cos\nsystem\n")),
        "state of the dict class": archive(_built(b"ccollections\nOrderedDict\n")),
        "extension opcode": archive(b"\x80\x02\x82\x01."),
        "memo of 32 GB": archive(b"\x80\x02}r\xff\xff\xff\x7f."),
        "deep tuple as a key": archive(b"\x80\x02}()" + b"\x85" * 400_000 + b"K\x01u."),
        "many operations": archive(b"\x80\x02" + b"N0" * 1_500_000 + b"}."),
        "bytes that are not there": archive(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"."),
        "number of a million digits": archive(b"\x80\x02I" + b"9" * 1_000_000 + b"\n."),
        "pickle of 20 MB": archive(b"\x80\x02" + b"N0" * 10_000_000 + b"}."),
        "no pickle": archive(b"hello"),
        "list": archive(pickled([good])),
        "tensors of 10,001 names": archive(pickled({str(i): good for i in range(10_001)})),
        "zip bomb": archive(
            pickled({"weight": good}), {"0": bytes(2**28)}, compression=zipfile.ZIP_DEFLATED
        ),
        "lzma": archive(pickled({"weight": good}), compression=zipfile.ZIP_LZMA),
        "big endian": archive(pickled({"weight": good}), byteorder=b"big"),
        "no storage": archive(pickled({"weight": good}), {}),
        "two pickles": _two_pickles(),
        "two entries of one name": _twice(),
        "encrypted": _encrypted(),
        "tar": _tar(),
        "format before 1.6": _legacy(),
        "cut short": whole[: len(whole) // 2],
        "without its head": whole[1000:],
        "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "web page": b"<!DOCTYPE html><title>404</title>",
        "empty": b"",
        "other tensors": state(good),
    }


def weights(config: str) -> dict[str, bytes]:
    """Safetensors files; `config` is a configuration that could be loaded."""
    f32 = {"dtype": "F32", "shape": [2]}
    one = {"w": {**f32, "data_offsets": [0, 8]}}
    fields = json.loads(config)
    deep = json.loads(config)
    deep["backbone"]["depths"] = [10**9, 2, 2]
    wide = json.loads(config)
    wide["backbone"]["block_dims"] = [2**40, 2**40, 2**40]
    levels = json.loads(config)
    levels["transformer"]["topks"] = [1] * 100_000
    infinite = json.loads(config)
    infinite["coarse"]["temperature"] = float("inf")
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = {f"w{i}": nothing for i in range(500)}

    def configured(text: str) -> bytes:
        return safetensors({"__metadata__": {"config": text}, **many}, b"")

    return {
        "header of 16 EB": struct.pack("<Q", 2**64 - 1) + b"{}",
        "header of 100 MB": struct.pack("<Q", 10**8) + b"{" + b" " * 1000,
        "header cut short": struct.pack("<Q", 1000) + b"{}",
        "three bytes": b"abc",
        "no JSON": safetensors_text(b"hello", b""),
        "deep JSON": safetensors_text(b"[" * 100_000 + b"]" * 100_000, b""),
        "overlap": safetensors({**one, "v": {**f32, "data_offsets": [4, 12]}}, bytes(12)),
        "hole": safetensors({**one, "v": {**f32, "data_offsets": [12, 20]}}, bytes(20)),
        "negative offset": safetensors({"w": {**f32, "data_offsets": [-8, 0]}}, bytes(8)),
        "shape of another size": safetensors({"w": {**one["w"], "shape": [3]}}, bytes(8)),
        "unknown type": safetensors({"w": {**one["w"], "dtype": "PICKLE"}}, bytes(8)),
        "no configuration": safetensors(one, bytes(8)),
        "10,001 tensors": safetensors({f"w{i}": nothing for i in range(10_001)}, b""),
        "_target_": configured(json.dumps({"_target_": "os.system", "_args_": ["true"]})),
        "nested _target_": configured(
            json.dumps({**fields, "backbone": {"_target_": "os.system"}})
        ),
        "configuration of a list": configured("[]"),
        "configuration of no JSON": configured("{"),
        "deep configuration": configured("[" * 100_000),
        "a billion layers": configured(json.dumps(deep)),
        "2^40 channels": configured(json.dumps(wide)),
        "100,000 levels": configured(json.dumps(levels)),
        "infinite temperature": configured(json.dumps(infinite)),
        "other tensors": configured(config),
    }


def safetensors(header: Mapping[str, Any], data: bytes) -> bytes:
    return safetensors_text(json.dumps(header).encode(), data)


def safetensors_text(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data

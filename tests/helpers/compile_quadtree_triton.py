"""Compile the Triton kernel for an NVIDIA architecture, which needs no GPU, and print its use.

One line for each of several calls: registers a thread, bytes of stack, bytes of shared memory.
"""

import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from matcher.attention import triton_kernel

POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def source(dtype: torch.dtype, d: int, topks: tuple[int, int], variant: str) -> ASTSource:
    """The kernel as it is specialized for a call with key masks."""
    constants = triton_kernel.specialization(d, *topks, variant == "A", True, dtype)
    signature, values = {}, {}
    for name in triton_kernel._descend_kernel.arg_names:
        if name in constants:
            signature[name], values[name] = "constexpr", constants[name]
        elif name.startswith("mask"):
            signature[name] = "*u8"
        elif name == "blocks_ptr":
            signature[name] = "*i64"
        elif name == "parents_ptr" and variant == "B":
            signature[name], values[name] = "constexpr", None
        elif name == "parents_ptr":
            signature[name] = "*fp32"
        elif name.endswith("_ptr"):
            signature[name] = POINTERS[dtype]
        else:
            signature[name] = "fp32" if name == "scale" else "i32"
    order = list(signature)
    aligned = [["tt.divisibility", 16]]
    return ASTSource(
        triton_kernel._descend_kernel,
        signature,
        {(order.index(name),): value for name, value in values.items()},
        {(i,): aligned for i, name in enumerate(order) if signature[name].startswith("*")},
    )


def use(compiled: Any) -> tuple[str, str]:
    """Registers and bytes of stack as the assembler reports them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        report = subprocess.run(
            [TOOLS / "cuobjdump", "-res-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", report.stdout + report.stderr)
    assert found is not None
    return found.group(1), found.group(2)


def main(capability: int) -> None:
    calls = [(torch.bfloat16, 32), (torch.float32, 32), (torch.bfloat16, 64)]
    for (dtype, d), topks, variant in itertools.product(calls, [(16, 8), (32, 16)], "AB"):
        warps = triton_kernel.warps(d, *topks, dtype)
        target = GPUTarget("cuda", capability, 32)
        compiled = triton.compile(
            source(dtype, d, topks, variant), target=target, options={"num_warps": warps}
        )
        row = dtype, d, *topks, variant, warps, *use(compiled), compiled.metadata.shared
        sys.stdout.write(" ".join(map(str, row)) + "\n")


main(int(sys.argv[1]))

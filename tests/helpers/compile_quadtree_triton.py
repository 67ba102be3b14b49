"""Compile the Triton kernels for an NVIDIA architecture, which needs no GPU, and print their use.

One line for each of several calls: registers a thread, bytes of stack, bytes of shared memory.
"""

import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from matcher.attention import triton_kernel, triton_levels

POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
FP32 = ("scores_ptr", "d_scores_ptr", "dk_ptr", "dv_ptr")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def source(kernel: Any, dtype: torch.dtype, constants: dict[str, Any], cascade: bool) -> ASTSource:
    """A kernel as it is specialized for a call with key masks."""
    signature, values = {}, {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name], values[name] = "constexpr", constants[name]
        elif name.startswith("mask"):
            signature[name] = "*u8"
        elif name in ("blocks_ptr", "selected_ptr"):
            signature[name] = "*i64"
        elif name.endswith("parents_ptr") and not cascade:
            signature[name], values[name] = "constexpr", None
        elif name.endswith("parents_ptr") or name in FP32:
            signature[name] = "*fp32"
        elif name.endswith("_ptr"):
            signature[name] = POINTERS[dtype]
        else:
            signature[name] = "fp32" if name == "scale" else "i32"
    order = list(signature)
    aligned = [["tt.divisibility", 16]]
    return ASTSource(
        kernel,
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


def calls() -> Iterator[tuple[Any, torch.dtype, int, tuple[int, int], str]]:
    """Kernels, dtypes, D, K above and below, variants."""
    kinds = [(torch.bfloat16, 32), (torch.float32, 32), (torch.bfloat16, 64)]
    fused = itertools.product([triton_kernel._descend_kernel], kinds, [(16, 8), (32, 16)], "AB")
    levels = itertools.product(
        [triton_levels._forward_kernel, triton_levels._backward_kernel],
        kinds[:2],
        [(20, 28), (32, 0)],
        "AB",
    )
    for kernel, (dtype, d), topks, variant in itertools.chain(fused, levels):
        yield kernel, dtype, d, topks, variant


def main(capability: int) -> None:
    target = GPUTarget("cuda", capability, 32)
    for kernel, dtype, d, topks, variant in calls():
        cascade = variant == "A"
        constants = triton_kernel.specialization(d, *topks, cascade, True, dtype)
        if kernel is triton_kernel._descend_kernel:
            constants["SLOTS"] = triton_kernel.power_of_two(topks[1], 1)
            warps = triton_kernel.warps(d, *topks, dtype)
        else:
            warps = triton_levels.warps(d, topks[0])
        asked = source(kernel, dtype, constants, cascade)
        compiled = triton.compile(asked, target=target, options={"num_warps": warps})
        name = kernel.__name__
        row = name, dtype, d, *topks, variant, warps, *use(compiled), compiled.metadata.shared
        sys.stdout.write(" ".join(map(str, row)) + "\n")


main(int(sys.argv[1]))

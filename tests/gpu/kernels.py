"""Where kernels are tested: those of Triton on a GPU, or in its interpreter on the CPU; compiled ones with numba.

Where OHMFORMER_REQUIRE_NUMBA is set, as in CI, numba must be installed.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from ohmformer.streams.compiling import has_amx

needs_numba = pytest.mark.skipif(
    find_spec("numba") is None and not os.environ.get("OHMFORMER_REQUIRE_NUMBA"), reason="numba is not installed"
)
needs_amx = pytest.mark.skipif(not has_amx(), reason="the CPU has no matrix units, or numba is not installed")
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
KERNEL_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Its tensors a kernel can reach: without a GPU, `tests/conftest.py` switches the interpreter on."""

COMPILE = """
import sys, json
from importlib import import_module
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

module, function, cases = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
kernel = getattr(import_module(module), function)
for types, constants in cases:
    types = types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, {name: types[name] for name in kernel.arg_names}, constexprs=constants)
    compiled = triton.compile(source, GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    print(len(compiled.asm["cubin"]))
"""


def sizes_compiled(module: str, function: str, cases: list[tuple[dict[str, str], dict[str, int | bool]]]) -> list[int]:
    """Compile a kernel for a GPU of compute capability 9.0, which needs no GPU.

    Args:
        module: where it stands.
        function: its name.
        cases: types of its arguments, and values of its constants.

    Returns:
        The bytes of machine code of each case.
    """
    command = [sys.executable, "-c", COMPILE, module, function, json.dumps(cases)]
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]

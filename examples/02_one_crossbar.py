"""One crossbar, without a model: program a matrix and multiply with it at three levels of fidelity."""

import torch

import ohmformer as of

array = of.replace(of.load_crossbar("clipformer_2024"), "cell.read_noise", {"kind": "proportional", "sigma": 0.05})
torch.manual_seed(0)
w, x = torch.randn(40, 100), torch.randn(6, 100)
exact = x @ w.T

geometry = of.mapping.plan(outputs=40, inputs=100, array=array)
used = 100 * geometry.utilization
print(f"{geometry.arrays} arrays of {array.rows} x {array.columns}, {used:.0f} % of their cells used")

programmed = of.array.program(w, array, stream=1)
for level in ("cell", "array", "noise"):
    y = of.array.mvm(x, programmed, level=level, stream=2)
    print(f"{level:5}: relative error {float((y - exact).norm() / exact.norm()):.3f}")

"""Which block size suits an accelerator? Every block size at once, through the closed form."""

import numpy as np

import ohmformer as of
from ohmformer.cost.placement import place
from ohmformer.dataflow.closed_form import Designs, latencies

work = of.shapes("bert-large", tokens=512)
hardware = of.load("xformer_tvlsi_2023")
blocks = np.arange(4, 513, 4)
found = latencies(place(work, hardware), of.SequenceBlocking(), Designs(blocks, {}))
best = int(np.argmin(found))
print(f"{len(blocks)} block sizes; the best is {blocks[best]} tokens: {found[best] * 1e3:.2f} ms")

run = of.simulate(work, hardware, of.SequenceBlocking(block=int(blocks[best])))
print(f"event engine: {run.latency * 1e3:.2f} ms, {run.energy * 1e3:.0f} mJ, {run.area * 1e6:.0f} mm²")
print(", ".join(f"{name} {share:.0%}" for name, share in run.utilization.items()))

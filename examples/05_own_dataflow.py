"""A custom dataflow: the host starts one stage at a time, so nothing overlaps. How much do other dataflows gain?"""

from typing import Literal

import numpy as np

import ohmformer as of
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.jobs import unit_name
from ohmformer.quantities import Seconds


@of.register
class HostDriven(of.Dataflow):
    """One stage of one sample at a time; the host starts each when the previous one has ended.

    `start_time`: time that the host takes to start a stage [s].
    """

    kind: Literal["host_driven"] = "host_driven"
    start_time: Seconds = 0.0

    def jobs(self, placement):
        """Every stage once per sample, one after another."""
        jobs: list[Job] = []
        for sample in range(placement.workload.batch):
            for index, layer in enumerate(placement.layers):
                for stage in layer.all_stages():
                    after = (len(jobs) - 1,) if jobs else ()
                    tokens = 1 if stage is layer.setup else layer.tokens
                    seconds = self.start_time + stage.time(tokens)
                    share = 1 / placement.workload.batch
                    jobs.append(Job(index, stage, sample, 0, unit_name(layer, stage), seconds, after, share))
        return jobs


work = of.shapes("bert-large", tokens=512)
hardware = of.load("xformer_tvlsi_2023")
blocks = np.arange(16, 513, 16)
explored = of.explore(of.DesignPoint(work, hardware, of.SequenceBlocking(block=int(block))) for block in blocks)
best = int(blocks[np.argmin(explored.latency)])

flows = (HostDriven(start_time=1e-6), of.LayerSerial(), of.SequenceBlocking(block=best))
runs = {flow.kind: of.simulate(work, hardware, flow) for flow in flows}
for name, run in runs.items():
    busy = ", ".join(f"{engine} {share:.0%}" for engine, share in run.utilization.items())
    print(f"{name:17} {run.latency * 1e3:6.2f} ms, {run.energy * 1e3:.0f} mJ; at work: {busy}")
print(f"the best of {len(blocks)} block sizes is {best} tokens")

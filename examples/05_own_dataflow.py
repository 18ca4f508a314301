"""A dataflow of one's own: chunked prefill, as servers of language models do it. What does the order of work decide?"""

from typing import Literal

import ohmformer as of
from ohmformer.dataflow.job_list import JobList
from ohmformer.errors import BadInput
from ohmformer.quantities import Count


@of.register
class ChunkedPrefill(of.Dataflow):
    """A prompt is cut into chunks, and every unit serves chunk after chunk, each with all its layers.

    `chunk`: tokens per chunk.
    """

    kind: Literal["chunked_prefill"] = "chunked_prefill"
    chunk: Count = 64

    def block_size(self, tokens):
        """Tokens whose scores are kept at once."""
        return min(self.chunk, tokens)

    def softmax_sets(self):
        """Every layer has its own softmax units; with one set, a chunk would wait for all layers of the one before."""
        return "per_layer"

    def jobs(self, placement):
        """Chunk by chunk through all layers; units take their jobs in this order, so K and V come before their use."""
        work, todo = placement.workload, JobList(placement)
        if not work.causal or placement.hardware.attention.arrays == "shared":
            raise BadInput("dataflow.kind = 'chunked_prefill': needs a causal model and attention arrays per layer")
        for sample in range(work.batch):
            for block, first in enumerate(range(0, work.tokens, self.chunk)):
                after: tuple[int, ...] = ()
                tokens = min(self.chunk, work.tokens - first)
                for index, layer in enumerate(placement.layers):
                    for stage in range(len(layer.stages)):
                        after = (todo.add(index, stage, tokens, after, sample=sample, block=block),)
        return todo.jobs


work = of.shapes("gpt2", tokens=1024)
hardware = of.load("nvm_ideal")
flows = {
    "layer by layer": of.LayerSerial(),
    "blocks in each layer": of.SequenceBlocking(block=64),
    "overlapping layers": of.LayerOverlap(block=64),
    "the same, one set of softmax units": of.LayerOverlap(block=64, softmax="shared"),
    "chunked prefill, chunks of 64": ChunkedPrefill(chunk=64),
    "chunked prefill, chunks of 256": ChunkedPrefill(chunk=256),
}
for name, flow in flows.items():
    run = of.simulate(work, hardware, flow)
    print(f"{name:35} {run.latency * 1e3:6.3f} ms, {run.energy * 1e3:5.1f} mJ, {run.area * 1e6:6.1f} mm^2")

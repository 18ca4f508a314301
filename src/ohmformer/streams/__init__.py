"""Which random numbers belong to a key, and what are the samples of a batch called?

`keys` says what a stream belongs to, `sample_names` which samples a batch has. A source draws the numbers of a stream:
from one generator of torch per key on the CPU (`sources`), from the counter-based generator Philox for all keys at once
on other devices (`counted_source`). There, `places` says where the numbers of each key stand in a tensor, and `philox`
(PyTorch) or `philox_kernel` (Triton, one launch) computes them; `backends` chooses. On the CPU streams may choose the
same generator, in loops that numba compiles (`philox_compiled`, `compiling`).
"""

from ohmformer.streams.keys import PaddedStreams as PaddedStreams
from ohmformer.streams.keys import Part as Part
from ohmformer.streams.keys import SampleStreams as SampleStreams
from ohmformer.streams.keys import Stream as Stream
from ohmformer.streams.keys import Streams as Streams
from ohmformer.streams.keys import TokenStreams as TokenStreams
from ohmformer.streams.keys import stacked_normal as stacked_normal
from ohmformer.streams.sample_names import UnnamedSamples as UnnamedSamples
from ohmformer.streams.sample_names import current_samples as current_samples
from ohmformer.streams.sample_names import sample_streams as sample_streams
from ohmformer.streams.sample_names import samples as samples
from ohmformer.streams.sources import RandomSource as RandomSource

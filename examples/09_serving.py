"""Serving a language model: what do a prompt of 512 tokens and 128 generated tokens take on a machine of fixed size?"""

import ohmformer as of

machine, flow = of.load("nvm_ideal"), of.LayerOverlap(block=64)
for batch in (1, 8):
    served = of.serve("gpt2", machine, prompt=512, generate=128, batch=batch, dataflow=flow)
    print(served)
    steady = served.steady  # None for a dataflow that makes its own jobs
    assert steady is not None
    print(f"steady state: {steady.output_tokens_per_s:.0f} tokens/s, {1e6 * steady.energy_per_token:.1f} uJ a token\n")

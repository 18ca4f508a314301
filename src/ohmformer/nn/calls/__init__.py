"""What does each call of a converted model begin and end with?

`hooks` runs at every call. `call_info` reads its arguments, and `padded_layers` the padding masks of PyTorch's layers.
`larger_inputs` warns of inputs beyond the calibration. `beam_search_guard` refuses caches whose tokens moved between
samples. `outputs` finds the tensors of a result.
"""

"""What does each call of a converted model begin and end with?

`hooks` runs at every call. `call_info` reads its arguments, `larger_inputs` warns of inputs beyond the calibration, and
`beam_search_guard` refuses caches whose tokens moved between samples. `outputs` finds the tensors of a result.
"""

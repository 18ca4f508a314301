"""How does a model get onto crossbars and off again, and what does each call of a converted model begin and end with?

`convert`, `revert`, `replace`, `operand_choice`, `sharing`, `self_check` and `calibrate_ranges` run once. `hooks`,
`call_info`, `beam_search_guard` and `unseen_ranges` act at each call; `handle` holds what calls share.
"""

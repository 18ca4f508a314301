"""How does a model get onto crossbars and off again, and how are its settings changed in between?

`convert`, `revert`, `replace`, `operand_choice`, `attention_marks` and `sharing` run once;
`calibrate_ranges` and `set_clip` run again on request. `handle` is the record of a converted model.
"""

"""How many arrays does a matrix take, and how often are its cells written and read?

Pulses are counted elsewhere: those of one write are `Cell.write_pulses`, and `cost/write_wear.py` multiplies the two.
"""

from ohmformer.mapping.planning import Plan, plan

__all__ = ["Plan", "plan"]

"""How many arrays does a matrix take, and how many pulses does writing it take?"""

from ohmformer.mapping.planning import Plan, plan

__all__ = ["Plan", "plan"]

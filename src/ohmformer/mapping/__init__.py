"""How many arrays does a matrix take, and what does writing it cost in pulses?"""

from ohmformer.mapping.planning import Plan, plan

__all__ = ["Plan", "plan"]

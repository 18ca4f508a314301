"""Matrices onto arrays: how many, how full, and how often they are written and read."""

from ohmformer.mapping.plan import Plan, plan
from ohmformer.mitigation.spec import KVClip

__all__ = ["KVClip", "Plan", "plan"]

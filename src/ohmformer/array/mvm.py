"""Former home of `array/multiply.py`; kept until nothing imports it."""

from ohmformer.array.multiply import LEVELS, Folded, Level, fold, folded_product, mvm, quantised_input

__all__ = ["LEVELS", "Folded", "Level", "fold", "folded_product", "mvm", "quantised_input"]

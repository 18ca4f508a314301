"""Noise of converters and of row drivers, as quantities whose limits can be searched."""

from __future__ import annotations

from typing import Any, ClassVar

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.study.requirements.arrays import Arrays, with_array
from ohmformer.study.requirements.quantity import Quantity
from ohmformer.study.results.requirements import QuantityUnit
from ohmformer.study.spec import Whole


class PeripheralNoise(Quantity):
    """A standard deviation among the peripherals of an array."""

    unit: ClassVar[QuantityUnit] = "%"
    low, high, start = 1e-5, 1.0, 0.01
    is_noise = True

    def prepared(self, arrays: Arrays, whole: Whole, kind: str | None) -> Arrays:
        """The arrays with this noise; where none has any, all arrays that may have it."""
        arrays = super().prepared(arrays, whole, kind)
        having = {place: array for place, array in arrays.by_role.items() if self.value(array) > 0}
        if having:
            return Arrays(having)
        able, refused = dict[str, Crossbar](), ""
        for place, array in arrays.by_role.items():
            try:
                able[place] = self.changed(array, self.start)
            except BadInput as error:
                refused = refused or f"{self.name}: {place}: {error}"
        if not able:
            raise BadInput(refused)
        return Arrays(able)

    def value(self, array: Crossbar) -> float:
        """The standard deviation."""
        return float(getattr(array.peripherals, self.name))

    def changed(self, array: Crossbar, value: float) -> Crossbar:
        """The array with another standard deviation."""
        return with_array(array, peripherals=array.peripherals.model_copy(update={self.name: value}))

    def off(self, array: Crossbar) -> Crossbar:
        """The array without this noise."""
        return self.changed(array, 0.0)

    def parameters(self, array: Crossbar) -> dict[str, Any]:
        """The standard deviation, and the bits of the converters."""
        return {self.name: self.value(array), "adc.bits": array.adc.bits}


class OutputNoise(PeripheralNoise):
    """Standard deviation of the noise of one conversion."""

    name = "output_noise"
    title = harm = "noise of converters"
    meaning = "standard deviation of one conversion, as a share of the range of the converter"


class InputNoise(PeripheralNoise):
    """Standard deviation of the voltage of a row in one read."""

    name = "input_noise"
    title = harm = "noise of row drivers"
    meaning = "standard deviation of the voltage of a driven row in one read, as a share of its largest voltage"

"""`WeightNames`: the operand names of the matrices that products multiply by.

A matrix is the weight of a whole layer, a part of a parameter, one matrix of a bank, or another reading of the same
weights (transposed, for example).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ohmformer.capture.product import Product
from ohmformer.hardware.operand_names import form_name, weight_name


@dataclass(frozen=True)
class NamedMatrix:
    """A matrix of weights with its operand name.

    Attributes:
        name: name of the operand.
        layer: name of the layer, or of the parameter if it is not called `weight`.
        start: offset of the first value of the matrix from that of the parameter, in values.
        index: index of the matrix in a bank [E, ., .]; None outside banks.
    """

    name: str
    layer: str
    start: int
    index: int | None = None


class WeightNames:
    """Names the matrices of weights that the products of a model multiply by."""

    def __init__(self, model: nn.Module) -> None:
        self.modules: Mapping[str, nn.Module] = dict(model.named_modules())
        self.parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
        self._listed = {id(parameter): name for name, parameter in self.parameters.items()}
        self._forms: dict[str, list[tuple[object, ...]]] = {}

    def own_weight(self, module: str) -> str:
        """The name of a module's parameter `weight`: for tied weights, the first name of the shared parameter."""
        return self._listed.get(id(self.modules[module]._parameters.get("weight")), "")

    def matrix(self, product: Product) -> NamedMatrix:
        """The matrix of a product with its name: a whole parameter, a part of one, or one matrix of a bank."""
        parameter, matrix, origin = self.parameters[product.weights], product.matrix, product.origin
        assert matrix is not None
        assert origin is not None
        layer = self._layer(product)
        start = int(origin.storage_offset()) - int(parameter.storage_offset())
        if _from_bank(parameter, matrix):
            return self._bank_matrix(product, layer, start // max(1, parameter.stride(0)), start)
        part = None if matrix.numel() == parameter.numel() else start
        return NamedMatrix(self._form_name(weight_name(layer, part=part), product, start), layer, start)

    def bank(self, product: Product) -> list[NamedMatrix]:
        """All matrices, used or not, of the bank to which the matrix of a product belongs; [] without a bank."""
        parameter, matrix = self.parameters[product.weights], product.matrix
        if matrix is None or not _from_bank(parameter, matrix):
            return []
        layer = self._layer(product)
        return [self._bank_matrix(product, layer, e, e * parameter.stride(0)) for e in range(len(parameter))]

    def _layer(self, product: Product) -> str:
        """The layer of a product: the module that computes it if it owns the weights, or else their owner."""
        owner, _, attribute = product.weights.rpartition(".")
        if product.module and self.own_weight(product.module) == product.weights:
            return product.module
        return owner if attribute == "weight" else product.weights

    def _bank_matrix(self, product: Product, layer: str, index: int, start: int) -> NamedMatrix:
        return NamedMatrix(self._form_name(weight_name(layer, index=index), product, start), layer, start, index)

    def _form_name(self, name: str, product: Product, start: int) -> str:
        """The name of a matrix, with a suffix `#as2` ... if the same weights were read as another matrix before."""
        form = (start, *geometry(product)[1:])
        forms = self._forms.setdefault(name, [])
        if form not in forms:
            forms.append(form)
        return form_name(name, forms.index(form))


def geometry(product: Product) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Offset, shape and strides of the view of a parameter that a product's matrix is (or is a copy of); its own shape.

    They differ for different parts of one parameter, and for different readings of it as a matrix.
    """
    origin, matrix = product.origin, product.matrix
    assert origin is not None
    assert matrix is not None
    return int(origin.storage_offset()), tuple(origin.shape), origin.stride(), tuple(matrix.shape)


def _from_bank(parameter: Tensor, matrix: Tensor) -> bool:
    """True if a matrix is one of those that a parameter [E, ., .] holds."""
    return parameter.dim() == 3 and matrix.dim() == 2 and matrix.numel() == parameter[0].numel()

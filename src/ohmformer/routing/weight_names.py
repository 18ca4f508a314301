"""Names for the weights that products multiply by: layers, parts, banks, and other ways to read the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ohmformer.capture.product import Product
from ohmformer.hardware.operand_names import form_name, weight_name


@dataclass(frozen=True)
class NamedMatrix:
    """A matrix of weights by name.

    Attributes:
        name: of the operand.
        layer: the layer, or the parameter if it is not called `weight`.
        start: from the parameter's first value to the matrix's.
        index: of the matrix in a bank [E, ., .]; None outside banks.
    """

    name: str
    layer: str
    start: int
    index: int | None = None


class WeightNames:
    """Names the weights that the products of a model multiply by."""

    def __init__(self, model: nn.Module) -> None:
        self.modules: Mapping[str, nn.Module] = dict(model.named_modules())
        self.parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
        self._listed = {id(parameter): name for name, parameter in self.parameters.items()}
        self._forms: dict[str, list[tuple[object, ...]]] = {}

    def own_weight(self, module: str) -> str:
        """The name under which a module's weight is listed, which is another module's where they are tied."""
        return self._listed.get(id(self.modules[module]._parameters.get("weight")), "")

    def matrix(self, product: Product) -> NamedMatrix:
        """The matrix of a product: a whole parameter, a part of one, or one matrix of a bank."""
        parameter, matrix, origin = self.parameters[product.weights], product.matrix, product.origin
        assert matrix is not None
        assert origin is not None
        layer = self._layer(product)
        start = int(origin.storage_offset()) - int(parameter.storage_offset())
        if _from_bank(parameter, matrix):
            return self._of_bank(product, layer, start // max(1, parameter.stride(0)), start)
        part = None if matrix.numel() == parameter.numel() else start
        return NamedMatrix(self._unlike(weight_name(layer, part=part), product, start), layer, start)

    def bank(self, product: Product) -> list[NamedMatrix]:
        """All matrices of the bank that the matrix of a product belongs to, used or not; [] if it is in none."""
        parameter, matrix = self.parameters[product.weights], product.matrix
        if matrix is None or not _from_bank(parameter, matrix):
            return []
        layer = self._layer(product)
        return [self._of_bank(product, layer, e, e * parameter.stride(0)) for e in range(len(parameter))]

    def _layer(self, product: Product) -> str:
        owner, _, attribute = product.weights.rpartition(".")
        if product.module and self.own_weight(product.module) == product.weights:
            return product.module
        return owner if attribute == "weight" else product.weights

    def _of_bank(self, product: Product, layer: str, index: int, start: int) -> NamedMatrix:
        return NamedMatrix(self._unlike(weight_name(layer, index=index), product, start), layer, start, index)

    def _unlike(self, name: str, product: Product, start: int) -> str:
        """The name of a matrix, with `#as2` ... where the same weights were read as another matrix before."""
        form = (start, *geometry(product)[1:])
        forms = self._forms.setdefault(name, [])
        if form not in forms:
            forms.append(form)
        return form_name(name, forms.index(form))


def geometry(product: Product) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """What tells parts of one parameter, and ways to read it as a matrix, from one another.

    The place, shape and strides of the view of the parameter that the matrix is, or is copied from; and its own shape.
    """
    origin, matrix = product.origin, product.matrix
    assert origin is not None
    assert matrix is not None
    return int(origin.storage_offset()), tuple(origin.shape), origin.stride(), tuple(matrix.shape)


def _from_bank(parameter: Tensor, matrix: Tensor) -> bool:
    return parameter.dim() == 3 and matrix.dim() == 2 and matrix.numel() == parameter[0].numel()

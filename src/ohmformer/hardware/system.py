"""Specification of a system of several equal chips: how many there are, what each holds, and the links between them.

It affects cost only. The chips of a group share each of its layers; groups hold consecutive layers (a pipeline).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ohmformer.quantities import BytesPerSecond, Count, Duration, JoulesPerByte
from ohmformer.schema import Spec

Partition = Literal["pipeline", "tensor"]


class Link(Spec):
    """A link from one chip to another, which sends and receives at the same time."""

    bandwidth: Annotated[BytesPerSecond, Field(gt=0)]
    """Bandwidth in one direction [byte/s]."""
    energy: Annotated[JoulesPerByte, Field(ge=0)]
    """Energy of moving one byte from chip to chip, both ends included [J/byte]."""
    latency: Annotated[Duration, Field(ge=0)]
    """Time from the end of sending until the values have arrived [s]."""


class System(Spec):
    """Several equal chips, or several equal GPUs.

    The tiles of one chip are `chip.tiles`, or those of a node (`chip.tiles_per_node`) if that is left out: a node is
    then a chip.
    """

    chips: Count | None = None
    """Number of chips, among which layers are divided evenly; None for as few as the model needs."""
    partition: Partition = "pipeline"
    """`pipeline`: each chip holds whole layers, which follow one another. `tensor`: `degree` chips share each layer, by
    heads, columns and rows. If they cannot hold the model, several such groups form a pipeline."""
    degree: Count | None = None
    """Number of chips that share each layer, for `tensor` alone; None for all `chips` or, without these, for as few as
    hold the model."""
    link: Link
    """The links between chips."""
    links: Count = 1
    """Number of links of a chip that work at the same time. The exchanges of a layer take turns with them."""

    @model_validator(mode="after")
    def _consistent(self) -> System:
        if self.partition == "pipeline" and self.degree is not None:
            raise ValueError(
                f"degree = {self.degree}: in a pipeline, no chips share a layer; take partition = 'tensor', or leave "
                "degree out"
            )
        if self.chips is not None and self.chips % (self.degree or 1):
            raise ValueError(
                f"chips = {self.chips}: is not a multiple of degree = {self.degree}; correct one, since each group "
                "of a pipeline has as many chips"
            )
        return self

    @property
    def sharing(self) -> int | None:
        """Number of chips that share each layer; None for as few as hold the model."""
        return 1 if self.partition == "pipeline" else self.degree or self.chips

    @property
    def groups(self) -> int | None:
        """Number of groups of chips that form a pipeline; None for as few as the model needs."""
        return None if self.chips is None else self.chips // (self.sharing or 1)

"""How run-time K and V, and static weights, are conditioned before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from ohmformer.array.spec import Count, Crossbar, Percentile, Scale
from ohmformer.errors import BadInput
from ohmformer.schema import Spec, replace


class KVClip(Spec):
    """ClipFormer's two stages (Algorithm 1), on the conductance that a whole value of K or V would have.

    Stage I: G <- max(G - alpha G_min, G_min). Stage II: G <- min(G, beta G_max). `alpha = 0, beta = 1` changes nothing.
    In values x of full scale, with r = G_max / G_min: x <- max(x - alpha / (r - 1), 0), then
    x <- min(x, (beta r - 1) / (r - 1)).
    """

    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    beta: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.25

    def fits(self, array: Crossbar) -> bool:
        """Whether beta r > 1, so that stage II leaves something of the array's range."""
        return self.beta * array.cell.on_off_ratio > 1 + 1e-9  # r is a quotient of two rounded conductances

    def thresholds(self, array: Crossbar) -> tuple[float, float]:
        """What stage I subtracts and where stage II saturates, as fractions of full scale.

        Raises:
            BadInput: beta r <= 1: everything would be clipped to G_min.
        """
        r = array.cell.on_off_ratio
        if r == float("inf"):
            return 0.0, self.beta
        if not self.fits(array):
            raise BadInput(
                f"clip.beta = {self.beta:g}: with G_max / G_min = {r:g} nothing is left; raise beta, so that beta r > 1"
            )
        return self.alpha / (r - 1), (self.beta * r - 1) / (r - 1)

    def check(self, array: Crossbar) -> None:
        """Refuse an array that cannot have the clip.

        Raises:
            BadInput: beta r <= 1, or the array's encoding has no sign of its own.
        """
        self.thresholds(array)
        if array.encoding != "differential" and (self.alpha, self.beta) != (0.0, 1.0):
            raise BadInput(
                "clip: an 'offset' array stores zero in the middle of its range; use encoding = 'differential'"
            )

    def max_code(self, array: Crossbar) -> int:
        """The largest code that remains: beta = 1/4 leaves 62 of 255, hence three 2-bit slices instead of four."""
        shift, top = self.thresholds(array)
        full = array.max_code
        return round(full * min(max(1.0 - shift, 0.0), top))


class Conditioning(Spec):
    """What is done to K and V on the way into cells, and undone behind the product: nothing, on ideal hardware.

    With K' = (K - mean) M and Q' = Q M^-T, Q'K'^T is Q K^T but for Q mean, which softmax ignores. With
    V' = (V - mean) M, the product (P V') M^-1 lacks only mean times the sum of each row of P. What changes is the
    noise: its variance grows with range times magnitude, and both depend on the mean and on the basis.

    Attributes:
        mean: the mean of the tokens is removed: of those at hand, or, in causal attention, of those of calibration.
        basis: in which features are written. `own`: as they come. `rescaled`: each feature times a factor, so that K
            and Q (or V and the output) share the noise evenly. `hadamard`: rotated by a Hadamard matrix, which spreads
            large features over all. `balanced`: `rescaled` in all directions, not only along features, then `hadamard`:
            of all bases it has the smallest product of the power that is written and the power of noise that is read.
        scale: what shares one scale, in place of what the crossbar says.
        range: full scale, as a share of the largest magnitude; what is above saturates.
        slice_base: how much each slice counts more than the one below, in place of what the crossbar says.
        unbiased: codes are chosen by what cells hold of them on average, since no conductance falls below zero.
        copies: how many cells every digit is written into, in place of what the crossbar says: redundancy, which takes
            so many times the arrays, cells, writes and conversions. All else takes none; `calibrate` never chooses it.
    """

    mean: bool = False
    basis: Literal["own", "rescaled", "hadamard", "balanced"] = "own"
    scale: Scale | None = None
    range: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    slice_base: Annotated[int, Field(ge=1)] | None = None
    unbiased: bool = False
    copies: Count | None = None

    def on(self, array: Crossbar) -> Crossbar:
        """The crossbar as it is used with this conditioning: the same cells, or copies, other digital work around them.

        Raises:
            BadInput: the crossbar cannot be used so.
        """
        changes = {"scale": self.scale, "slice_base": self.slice_base, "copies": self.copies}
        try:
            for name, value in changes.items():
                array = array if value is None else replace(array, name, value)
        except BadInput as error:
            raise BadInput(f"kv.{error}") from None
        return array


KVConditioning = Conditioning | Mapping[str, Conditioning]
"""One for all K and V in memristive cells, or operand -> its own, as `calibrate` returns them."""


class WeightMitigation(Spec):
    """How static weights on memristive crossbars are conditioned, in the whole model; what a rule says comes first.

    Attributes:
        rotate: inputs and weights of every product are rotated alike, by a randomised Hadamard matrix, which changes no
            product and spreads outliers of both. Turning the inputs is digital work (see `rotation.operations`).
        scale: what shares one scale, in place of what the crossbar says.
        percentile: which percentile of the magnitudes the scale covers, likewise.
    """

    rotate: bool = False
    scale: Literal["tensor", "column"] | None = None
    percentile: Percentile | None = None


Clip = KVClip | Literal["none"]

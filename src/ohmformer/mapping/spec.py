"""How run-time K and V are conditioned before they are written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.schema import Spec


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

"""Specification of the mitigations of write noise: of K and V at run time, and of static weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ohmformer.array.residual.spec import Residual
from ohmformer.array.spec import Copies, Crossbar, Scale
from ohmformer.errors import BadInput
from ohmformer.quantities import Fraction, FullScale, Percentile, PositiveShare, WholeNumber
from ohmformer.schema import Spec, replace
from ohmformer.wording import with_article


class KVClip(Spec):
    """The two-stage clip of ClipFormer, on the conductance that one cell holding a whole value of K or V would have.

    Stage I: G <- max(G - alpha G_min, G_min). Stage II: G <- min(G, beta G_max). `alpha = 0, beta = 1` changes nothing.
    For magnitudes x as shares of full scale and r = G_max / G_min: x <- max(x - alpha / (r - 1), 0), then
    x <- min(x, (beta r - 1) / (r - 1)). Source: ClipFormer (TCAD 2024), Algorithm 1.
    """

    alpha: Fraction = 2.0
    """Stage I: what is subtracted, in units of G_min."""
    beta: PositiveShare = 0.25
    """Stage II: where the conductance saturates, as a share of G_max."""

    def fits(self, array: Crossbar) -> bool:
        """True if beta r > 1, so that stage II leaves a part of the array's range."""
        return self.beta * array.cell.on_off_ratio > 1 + 1e-9  # r is a quotient of two rounded conductances

    def thresholds(self, array: Crossbar) -> tuple[float, float]:
        """What stage I subtracts and where stage II saturates, as shares of full scale.

        Raises:
            BadInput: beta r <= 1, so that every value would be clipped to G_min.
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
        """Check that an array supports the clip.

        Raises:
            BadInput: beta r <= 1, or the array's encoding is not differential.
        """
        self.thresholds(array)
        if array.encoding != "differential" and (self.alpha, self.beta) != (0.0, 1.0):
            raise BadInput(
                "clip: an 'offset' array stores zero in the middle of its range; use encoding = 'differential'"
            )

    def max_code(self, array: Crossbar) -> int:
        """The largest code that remains. For 8 bits and beta = 1/4 it is 62: three 2-bit slices, not four."""
        shift, top = self.thresholds(array)
        full = array.max_code
        return round(full * min(max(1.0 - shift, 0.0), top))


UNBIASED = (
    "unbiased: residual writing chooses digits for the least mean square error, so no code is corrected for its bias; "
    "leave unbiased or residual out"
)
"""Why `unbiased` and residual writing do not go together."""
FEEDBACK = (
    "residual.feedback: corrects errors in weights that are written later, and tokens of K and V come one by one; "
    "leave feedback out"
)
"""Why K and V have no corrections in later weights."""


class Conditioning(Spec):
    """What is done to K and V before they are written, and undone after the product; no change on ideal hardware.

    With K' = (K - mean) M and Q' = Q M^-T, the product Q'K'^T equals Q K^T except for the term Q mean^T. With
    V' = (V - mean) M, the product (P V') M^-1 equals P V except for mean times the sum of each row of P. Both terms are
    added back. Only the noise changes: its variance grows with range times magnitude, and both depend on the mean and
    on the basis.

    Attributes:
        mean: remove the mean of the tokens: of those present or, in causal attention, of those of calibration.
        basis: basis in which features are written. `own`: unchanged. `rescaled`: each feature times a factor, so that K
            and Q (or V and the output) share the noise evenly. `hadamard`: rotated by a Hadamard matrix, which spreads
            large features over all features. `balanced`: `rescaled` in all directions, not only along features, then
            `hadamard`; of all bases it has the smallest product of written power and read noise power.
        scale: the values that share one scale; None for that of the crossbar.
        range: full scale, as a share of the largest magnitude. Below 1, larger magnitudes saturate; above 1, the
            largest leave room for corrections, which residual writing makes use of.
        radix: weight of a slice relative to the slice below it; None for that of the crossbar.
        unbiased: write bias-corrected codes, since the clamp at G = 0 raises the mean of noisy cells.
        redundancy: the number of cells that every digit is written into; None for that of the crossbar. It
            multiplies arrays, cells, writes and conversions. `calibrate` never chooses it.
        residual: write the cells of a value one after the other, each for what those before it have left missing; None
            for what the crossbar does. It adds read-backs.
        first_tokens: the number of tokens at the start of a sequence that no cell holds: they stay in a digital memory
            and are multiplied digitally. Padding does not count. These are the attention sinks of StreamingLLM (Xiao
            et al. 2024, arXiv 2309.17453).
        last_tokens: the size of the recent window of causal attention: a query multiplies its own token and the
            `last_tokens - 1` before it digitally, and a token is written into cells when it leaves the window. KIVI
            (Liu et al. 2024, arXiv 2402.02750) keeps such a window in full precision.
    """

    renamed: ClassVar[dict[str, str]] = {"copies": "redundancy", "slice_base": "radix"}

    mean: bool = False
    basis: Literal["own", "rescaled", "hadamard", "balanced"] = "own"
    scale: Scale | None = None
    range: FullScale = 1.0
    radix: Annotated[int, Field(ge=1, le=65_536)] | None = None
    unbiased: bool = False
    redundancy: Copies | None = None
    residual: Residual | None = None
    first_tokens: WholeNumber = 0
    last_tokens: WholeNumber = 0

    @property
    def most_digital_tokens(self) -> int:
        """The largest number of tokens of a sequence that are digital at the same time."""
        return self.first_tokens + self.last_tokens

    def check_tokens(self, name: str, *, causal: bool, holds_queries: bool = False) -> None:
        """Refuse digital tokens that an operand cannot have.

        Args:
            name: name of the operand.
            causal: True if its queries see no later tokens.
            holds_queries: True if cells hold queries in place of keys.

        Raises:
            BadInput: the operand has digital tokens, and holds queries; or it has a recent window, and is not causal.
        """
        if self.most_digital_tokens and holds_queries:
            field = "first_tokens" if self.first_tokens else "last_tokens"
            raise BadInput(
                f"kv.{field} = {getattr(self, field)}: the cells of {name} hold queries, not keys or values; set "
                "written = 'right' for attention, or leave this field out"
            )
        if self.last_tokens and not causal:
            raise BadInput(
                f"kv.last_tokens = {self.last_tokens}: {name} is not causal: all queries see all tokens at once, so "
                f"there is no recent window; leave last_tokens out, or {name} with rules (clip = 'none')"
            )

    def on(self, array: Crossbar) -> Crossbar:
        """The crossbar with the `scale`, `radix`, `redundancy` and `residual` of this conditioning.

        Raises:
            BadInput: the crossbar does not support one of them, or codes are to be corrected for their bias although
                cells correct one another.
        """
        return _with_cells(array, self, ("scale", "radix", "redundancy", "residual"), "kv")

    @model_validator(mode="after")
    def _consistent(self) -> Conditioning:
        if self.unbiased and self.residual is not None:
            raise ValueError(UNBIASED)
        if self.residual is not None and self.residual.feedback:
            raise ValueError(FEEDBACK)
        return self


KVConditioning = Conditioning | Mapping[str, Conditioning]
"""One conditioning for all K and V in memristive cells, or operand name -> conditioning, as `calibrate` returns it."""


class WeightMitigation(Spec):
    """Mitigation of the static weights on memristive crossbars; no change on ideal hardware.

    With x' = x diag(1 / s) R and W' = W diag(s) R, the product x' W'^T equals x W^T. Only W' is written, and x' is
    computed digitally: one multiplication for each input, and the operations of a rotation (see
    `rotation_ops.operations`). All other fields change how W' is written, at no cost per product.

    Attributes:
        rotate: rotate inputs and weights of every product by the same randomized Hadamard matrix R, which spreads
            outliers of both.
        scaling: exponent a of the factors s_k = max|x_k|^a / max|w_k|^(1 - a) of the inputs k, which share large values
            between inputs and weights; None for s = 1. Maxima of inputs come from calibration. Sources: SmoothQuant
            (arXiv 2211.10438); NORA (DATE 2025) for analog arrays.
        scale: the values that share one scale; None for that of the crossbar.
        percentile: percentile of the magnitudes that the scale covers, in percent; None for that of the crossbar.
        range: full scale, as a share of what the percentile covers; larger magnitudes saturate. Above 1, the largest
            leave room for corrections, which residual writing makes use of.
        radix: weight of a slice relative to the slice below it; None for that of the crossbar.
        unbiased: write bias-corrected codes, since the clamp at G = 0 raises the mean of noisy cells.
        redundancy: the number of cells that every digit is written into; None for that of the crossbar. It multiplies
            arrays, cells, writes and conversions.
        residual: write the cells of a value one after the other, each for what those before it have left missing; None
            for what the crossbar does. It adds read-backs when weights are programmed.
    """

    renamed: ClassVar[dict[str, str]] = {"copies": "redundancy", "slice_base": "radix"}

    rotate: bool = False
    scaling: Annotated[float, Field(ge=0, le=1)] | None = None
    scale: Literal["tensor", "column"] | None = None
    percentile: Percentile | None = None
    range: FullScale = 1.0
    radix: Annotated[int, Field(ge=1, le=65_536)] | None = None
    unbiased: bool = False
    redundancy: Copies | None = None
    residual: Residual | None = None

    @property
    def changes_cells(self) -> bool:
        """True if the digits of cells differ from those that the crossbar alone would give them."""
        replaced = self.radix is not None or self.redundancy is not None or self.residual is not None
        return replaced or self.unbiased

    def on(self, array: Crossbar) -> Crossbar:
        """The crossbar with the `radix`, `redundancy` and `residual` of this mitigation.

        Raises:
            BadInput: the crossbar does not support one of them, or codes cannot be corrected for their bias.
        """
        array = _with_cells(array, self, ("radix", "redundancy", "residual"), "weights")
        if self.unbiased and array.encoding != "differential":
            raise BadInput(
                f"weights.unbiased: {with_article(repr(array.encoding))} array has no magnitudes of its own; use "
                "encoding = 'differential', or leave unbiased out"
            )
        return array

    @model_validator(mode="after")
    def _consistent(self) -> WeightMitigation:
        if self.unbiased and self.residual is not None:
            raise ValueError(UNBIASED)
        return self


Clip = KVClip | Literal["none"]
"""A clip of K or V, or explicitly no clip."""


def _with_cells(array: Crossbar, spec: Conditioning | WeightMitigation, names: Sequence[str], place: str) -> Crossbar:
    """The crossbar with those of the named fields of a mitigation that it sets.

    Args:
        array: the crossbar.
        spec: the mitigation.
        names: the fields.
        place: where a message says that the mitigation stands.

    Raises:
        BadInput: the crossbar does not support one of them, or codes are to be corrected for their bias although cells
            correct one another.
    """
    try:
        for name in names:
            value = getattr(spec, name)
            array = array if value is None else replace(array, name, value)
    except BadInput as error:
        raise BadInput(f"{place}.{error}") from None
    if spec.unbiased and array.residual is not None:
        raise BadInput(f"{place}.{UNBIASED}")
    return array

"""After which time must cells of keys and values be written again?"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ohmformer.errors import BadInput
from ohmformer.quantities import Fraction

if TYPE_CHECKING:
    from ohmformer.hardware.spec import Attention

RefreshLoss = Annotated[Fraction, Field(gt=0, lt=1)]
"""The share that no typical cell of keys and values may lose by drift before it is written again."""


def refresh_interval(attention: Attention) -> float | None:
    """Time after which every cell of K and V has been written again [s]; None for cells that keep their values."""
    loss = attention.refresh_loss
    if loss is None:
        return attention.refresh
    arrays = [engine.array for engine in (attention.key, attention.value) if hasattr(engine, "array")]
    return min((array.cell.time_to_lose(loss) for array in arrays), default=inf)


def check_refresh(attention: Attention) -> None:
    """Refuse a refresh that is stated twice, or that is never due.

    Raises:
        ValueError: it is; or a kind of drift does not say when its cells lose a share.
    """
    if attention.refresh_loss is None:
        return
    if attention.refresh is not None:
        raise ValueError("refresh and refresh_loss both say when K and V are written again; leave one of them out")
    try:
        interval = refresh_interval(attention)
    except BadInput as error:
        raise ValueError(str(error)) from None
    if interval == inf:
        raise ValueError(
            f"refresh_loss = {attention.refresh_loss:g}: no cells of K and V ever lose this share by drift; leave it "
            "out, or give the cells a drift"
        )

"""Effective conductances of an array whose wires have resistance.

An array is a linear network, so its currents are I_c = sum_r A[c, r] V_r. A is the matrix of effective conductances. It
depends on the cells alone, so it is computed once per writing and serves all inputs.

Shapes: N arrays, R rows, C columns. Row 0 is next to the converters, column 0 next to the drivers.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import pad

from ohmformer.array.spec import Crossbar
from ohmformer.array.wires.spec import Wires

SWEEPS = 200
"""Largest number of sweeps: at the largest loss that is allowed, about 60 reach `CLOSE`."""
CLOSE = 1e-6
"""Largest change of a sweep, as a share of an array's largest current, after which its sweeps end."""
CHUNK = 1 << 24
"""Largest number of values in one matrix of a batch of arrays that are solved together."""
LEAST_CONDUCTANCE = 1e-9
"""Share of G_max from which on a cell conducts."""
MANY_OPERATIONS = 1e12
"""Operations of one exact solution, above which a warning says how much it computes: a minute or more on one core."""


class SlowWires(UserWarning):
    """The exact solution of the losses in wires takes minutes or hours for one matrix."""


def act_through_wires(digits: Tensor, array: Crossbar) -> Tensor:
    """Return what cells contribute to the currents at the converters, behind the loss in wires.

    The matrix is cut into arrays as in a read: `array.rows` inputs and `array.columns` outputs in each. Cells that hold
    no value are at G_min.

    Args:
        digits: [..., O, I] that the cells of one slice and polarity hold, in digit units.
        array: the hardware, with wires.

    Returns:
        Effective digits [..., O, I]; below zero where a cell acts as less than G_min.
    """
    assert array.wires is not None
    g = _cut_into_arrays(digits, array)
    if array.wires.ir_drop == "exact":
        _warn_if_slow(*g.shape)
    acting = effective_conductances(g, array.wires)
    return _joined((acting - array.cell.g_min) / array.step, digits.shape)


def effective_shares(digits: Tensor, acting: Tensor, array: Crossbar) -> Tensor:
    """Return the share of each cell's conductance that acts at the converters.

    It is the effective conductance over that of the cell. A cell without conductance has the share of the first-order
    solution.

    Args:
        digits: [..., O, I] that the cells hold, in digit units.
        acting: what `act_through_wires` returns for them.
        array: the hardware, with wires.

    Returns:
        Shares [..., O, I] from 0 to 1.
    """
    assert array.wires is not None
    g_min, step = array.cell.g_min, array.step
    g = _cut_into_arrays(digits, array)
    rows, columns = _common_paths(g, array.wires)
    without = _joined(1 / (1 + rows @ g + g @ columns), digits.shape)
    held = g_min + step * digits
    conducts = held > LEAST_CONDUCTANCE * array.cell.g_max
    share = (g_min + step * acting) / torch.where(conducts, held, 1.0)
    return torch.where(conducts, share, without).clamp(0.0, 1.0)


def _cut_into_arrays(digits: Tensor, array: Crossbar) -> Tensor:
    """Return the conductances [N, C, R] [S] of all cells of the arrays that hold digits [..., O, I]."""
    O, I = digits.shape[-2:]
    C, R = array.columns, array.rows
    padded = pad(digits, (0, -I % R, 0, -O % C))
    arrays = padded.reshape(-1, padded.shape[-2] // C, C, padded.shape[-1] // R, R).transpose(-3, -2)
    return arrays.reshape(-1, C, R) * array.step + array.cell.g_min


def _joined(arrays: Tensor, shape: torch.Size) -> Tensor:
    """Return the part [..., O, I] of arrays [N, C, R] that a matrix of this shape fills."""
    *lead, O, I = shape
    C, R = arrays.shape[-2:]
    across, down = -(-O // C), -(-I // R)
    blocks = arrays.reshape(-1, across, down, C, R).transpose(-3, -2).reshape(-1, across * C, down * R)
    return blocks[..., :O, :I].reshape(*lead, O, I)


def _warn_if_slow(arrays: int, C: int, R: int) -> None:
    """Warn if the exact solution of arrays [C, R] computes for minutes or more."""
    operations = 5.0 * arrays * max(C, R) * min(C, R) ** 3
    if operations > MANY_OPERATIONS:
        warnings.warn(
            f"wires.ir_drop = 'exact' takes {operations:.1e} operations for one matrix, in {arrays} array(s) of {R} x "
            f"{C} cells; set it to 'sweeps' (for small losses), or take smaller arrays",
            SlowWires,
            stacklevel=2,
        )


def effective_conductances(g: Tensor, wires: Wires) -> Tensor:
    """Return the effective conductances of arrays, by the solution that `wires.ir_drop` names.

    Args:
        g: conductances [N, C, R] [S] of all cells of the arrays.
        wires: resistances.

    Returns:
        A [N, C, R] in siemens, of the type of g.
    """
    return {"exact": exact, "sweeps": sweeps, "first_order": first_order}[wires.ir_drop](g, wires)


def first_order(g: Tensor, wires: Wires) -> Tensor:
    """Return approximate effective conductances [N, C, R] of g [N, C, R], all of them in siemens.

    A cell loses the share `loss` of its voltage if all rows have the same voltage and all cells the currents that they
    have without wires. Its effective conductance is g / (1 + loss), which agrees with the exact one in the first order
    of the resistances.
    """
    rows, columns = _common_paths(g, wires)
    return g / (1 + rows @ g + g @ columns)


def sweeps(g: Tensor, wires: Wires) -> Tensor:
    """Return approximate effective conductances [N, C, R] of g [N, C, R], all of them in siemens.

    They are the currents a of the cells at 1 V on all rows, the solution of a = g (1 - rows a - a columns), where the
    two products are the voltages that a cell loses along its row and its column. So they are exact for such inputs.
    Each sweep over all cells divides what is left by 1 + loss, as `first_order` does. Each array ends its sweeps by
    itself, so that it does not depend on those beside it.
    """
    rows, columns = _common_paths(g, wires)
    share = 1 / (1 + rows @ g + g @ columns)
    a = g * share
    going = torch.ones_like(a[:, :1, :1], dtype=torch.bool)  # arrays that have not come close yet
    for _ in range(SWEEPS):
        change = (g * (1 - rows @ a - a @ columns) - a) * share * going
        a = a + change
        going = going & (change.abs().amax((-2, -1), keepdim=True) > CLOSE * a.abs().amax((-2, -1), keepdim=True))
        if not bool(going.any()):
            break
    return a


def _common_paths(g: Tensor, wires: Wires) -> tuple[Tensor, Tensor]:
    """Return the resistance of the common path of two cells of a row [C, C], and of a column [R, R], to its end."""
    ends = ((g.shape[-2], wires.driver, wires.row), (g.shape[-1], wires.sense, wires.column))
    paths = []
    for cells, end, segment in ends:
        places = torch.arange(1, cells + 1, dtype=g.dtype, device=g.device)
        paths.append(end + segment * torch.minimum(places[:, None], places))
    return paths[0], paths[1]


def exact(g: Tensor, wires: Wires) -> Tensor:
    """Return the exact effective conductances [N, C, R] of g [N, C, R], all of them in siemens.

    Columns are eliminated one after another, from the far end of the rows: each column, with all that lies beyond, is a
    network that takes the currents Y w if its ends have the voltages w [R]. That is about 5 C R^3 operations for an
    array, as much as two or three sweeps of a relaxation for all unit inputs. Where there are fewer columns than rows
    the network is turned around: by reciprocity, the current at a column's end for a voltage at a row's end is that at
    the row's end for the same voltage at the column's end.
    """
    R, C = g.shape[-1], g.shape[-2]
    if R > C:
        turned = Wires(row=wires.column, column=wires.row, driver=wires.sense, sense=wires.driver)
        return exact(g.transpose(-2, -1), turned).transpose(-2, -1)
    parts = [_eliminated(part, wires) for part in g.double().split(max(1, CHUNK // R**2))]
    return torch.cat(parts).to(g.dtype)


def _eliminated(g: Tensor, wires: Wires) -> Tensor:
    """Return the effective conductances [N, C, R] of g, by elimination of one column after another.

    With the voltages w [R] of its cells at the rows, a column takes currents i = G (w - Z i), where Z holds the
    resistance of the common path of two rows to the end of the column. So i = D w with D = S (1 + S Z S)^-1 S, S^2 = G.
    """
    N, C, R = g.shape
    one, (_, common) = torch.eye(R, dtype=g.dtype, device=g.device), _common_paths(g, wires)
    demand, currents = g.new_zeros(N, R, R), g.new_zeros(N, 0, R)  # of the columns from the last one to the present one
    for c in range(C - 1, -1, -1):
        root = g[:, c].clamp(min=0.0).sqrt()  # a cell without conductance may be below zero by rounding
        outer = root.unsqueeze(-1) * root.unsqueeze(-2)
        taken = outer * _inverse(one + outer * common)
        total = taken + demand
        passed = _inverse(one + (wires.row + (wires.driver if c == 0 else 0.0)) * total)
        currents = torch.cat([taken.sum(-2, keepdim=True), currents], dim=1) @ passed
        demand = total @ passed
    return currents


def _inverse(matrix: Tensor) -> Tensor:
    """Return the inverse of symmetric positive definite matrices."""
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))

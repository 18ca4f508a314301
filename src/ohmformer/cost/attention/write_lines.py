"""Lines of arrays that are selected for writing: how many of them tokens and their features take.

Rows of an array take the inputs of products, columns are converted. K^T has its tokens in columns and its features in
rows, as Q has where it is stored; V has its tokens in rows and its features in columns. Writing selects one line after
another, and all cells of a line are written at once.
"""

from __future__ import annotations

from ohmformer.hardware.spec import ArrayEngine
from ohmformer.mapping.planning import Plan
from ohmformer.workload.spec import DynamicMatMul


def token_is_line(op: DynamicMatMul, engine: ArrayEngine) -> bool:
    """True if one write of a line writes a whole token; otherwise it writes one feature of all tokens of a block."""
    in_rows = op.role == "attention.value"
    return engine.write_lines == "transposable" or in_rows == (engine.write_lines == "rows")


def token_lines(op: DynamicMatMul, engine: ArrayEngine) -> int:
    """Number of tokens that an array has lines for."""
    return engine.array.rows if op.role == "attention.value" else engine.array.columns


def feature_lines(op: DynamicMatMul, engine: ArrayEngine) -> int:
    """Number of lines of an array that the features of a head take, with the reference column of V."""
    array = engine.array
    if op.role == "attention.value":
        return min(op.outputs, array.columns) + (array.encoding == "offset")
    return min(op.inputs, array.rows)


def reference_lines(op: DynamicMatMul, engine: ArrayEngine, *, appended: bool) -> int:
    """Number of lines of an array beside those of tokens: the reference of K, unless its tokens are appended to it."""
    return int(op.role == "attention.key" and engine.array.encoding == "offset" and not appended)


def matrix_lines(cells: Plan, engine: ArrayEngine, *, tokens_in_columns: bool = False) -> int:
    """Number of lines that are written one after another for a whole matrix: those of one array.

    Errors that are corrected in weights that are written later go from array to array along the inputs, so then it is
    those of all inputs.

    Args:
        cells: the matrix.
        engine: its engine.
        tokens_in_columns: True for K^T and Q^T, which transposable arrays write column by column.
    """
    array = engine.array
    if engine.write_lines == "columns" or (engine.write_lines == "transposable" and tokens_in_columns):
        return min(cells.outputs, array.columns) + (array.encoding == "offset")
    residual = cells.array.residual
    return cells.inputs if residual is not None and residual.feedback else min(cells.inputs, array.rows)

"""Heads of queries that share heads of keys and values.

Shapes: B samples, H heads of queries, G heads of keys and values, M queries, N tokens.
"""

from __future__ import annotations

from torch import Tensor

from ohmformer.nn.operands.kv import KVOperand


def multiply(
    operand: KVOperand, x: Tensor, w: Tensor, groups: int | None, valid: Tensor | None, *, sees_unwritten: bool
) -> Tensor:
    """Multiply two activations, one of which is written.

    Args:
        operand: the one that is written.
        x: the left factor [B, H, M, I].
        w: the right factor [B, G, O, I]; each of its heads serves H / G heads of x.
        groups: heads of w without copies; None if not known.
        valid: [B or 1, tokens] False where a token of w is padding; such tokens are not written.
        sees_unwritten: rows of x, or of a softmax of the result, may be about padding; see `unwritten`.

    Returns:
        x @ w.T [B, H, M, O].
    """
    M = x.shape[-2]
    if operand.write == "left":
        tokens = x.flatten(1, 2).unsqueeze(2) if M > 1 and operand.causal and _one_token(operand, w, valid) else x
        y = operand.product(every_head(w, tokens.shape[1]), tokens, None, w.shape[-2])
        return y.transpose(-2, -1).reshape(*x.shape[:-1], w.shape[-2])
    tokens = w if operand.axis == "K" else w.transpose(-2, -1)
    if groups is not None and tokens.shape[1] > groups and tokens.shape[1] % groups == 0:
        # Models with grouped queries copy heads in some calls, such as those with a mask, and not in others.
        copies = tokens.unflatten(1, (groups, -1))
        tokens = copies[:, :, 0] if bool((copies == copies[:, :, :1]).all()) else tokens
    B, H, _, I = x.shape
    G = tokens.shape[1]
    new = 1 if M > 1 and operand.causal and _one_token(operand, tokens, valid) else M
    y = operand.product(x if G == H else x.reshape(B, G, H // G * M, I), tokens, valid, new)
    y = y.reshape(B, H, M, y.shape[-1])
    if valid is None or not sees_unwritten or not operand.simulated:
        return y
    return y + unwritten(x, w, valid, operand.axis)


def _one_token(operand: KVOperand, tokens: Tensor, valid: Tensor | None) -> bool:
    """True if input vectors are heads of a single new token that share a head of tokens [B, G, N, d].

    Hugging Face packs them like that where one token meets a cache; `multiply` packs heads in the same order.
    """
    info = operand.state.call_info
    if len(info.numbers) != len(tokens) or len(info.numbers[0]) != 1 or not info.tokens_so_far:
        return False
    count = tokens.shape[-2] if valid is None else int(valid.sum(dim=1).max())
    return count <= max(info.tokens_so_far)


def every_head(tokens: Tensor, heads: int) -> Tensor:
    """tokens[B, G, N, d] repeated for H heads of queries: [B, H, N, d]."""
    return tokens if tokens.shape[1] == heads else tokens.repeat_interleave(heads // tokens.shape[1], dim=1)


def unwritten(x: Tensor, w: Tensor, valid: Tensor, axis: str) -> Tensor:
    """The part of a product that comes from tokens that are not written, computed digitally.

    A query that sees no token at all is padding itself. A softmax spreads it over all tokens, hidden ones included.
    Nobody uses its result, but it is the same as in the digital model.

    Args:
        x: the left factor [B, H, M, I].
        w: the right factor [B, G, O, I].
        valid: [B or 1, tokens] True for tokens of w that are written.
        axis: "K" if tokens are the outputs O, "V" if they are the inputs I.

    Returns:
        [B, H, M, O].
    """
    hidden = (~valid)[:, None, None, :].to(x.dtype)
    product = (x if axis == "K" else x * hidden) @ every_head(w, x.shape[1]).transpose(-2, -1)
    return product * hidden if axis == "K" else product

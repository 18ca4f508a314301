"""Heads of queries that share heads of keys and values.

Shapes: B samples, H heads of queries, G heads of keys and values, M queries, N tokens, d features.
"""

from __future__ import annotations

from torch import Tensor

from ohmformer.nn.operands.kv import KVOperand


def multiply(
    operand: KVOperand, x: Tensor, tokens: Tensor, groups: int | None, valid: Tensor | None, *, sees_unwritten: bool
) -> Tensor:
    """Multiply two activations, one of which is written: x @ K.T, or x @ V.

    Args:
        operand: the one that is written.
        x: the left factor [B, H, M, d or N].
        tokens: K or V [B, G, N, d], or K or V^T [B, G, O, I] where x is written; each head serves H / G heads of x.
        groups: heads of tokens without copies; None if not known.
        valid: [B or 1, N] False where a token is padding; such tokens are not written.
        sees_unwritten: rows of x, or of a softmax of the result, may be about padding; see `unwritten`.

    Returns:
        [B, H, M, N or d].
    """
    M = x.shape[-2]
    if operand.write == "left":
        queries = x.flatten(1, 2).unsqueeze(2) if M > 1 and operand.causal and _one_token(operand, tokens, valid) else x
        y = operand.product(every_head(tokens, queries.shape[1]), queries, None, tokens.shape[-2])
        return y.transpose(-2, -1).reshape(*x.shape[:-1], tokens.shape[-2])
    tokens = _without_copies(tokens, groups)
    B, H, _, I = x.shape
    G = tokens.shape[1]
    new = 1 if M > 1 and operand.causal and _one_token(operand, tokens, valid) else M
    y = operand.product(x if G == H else x.reshape(B, G, H // G * M, I), tokens, valid, new)
    y = y.reshape(B, H, M, y.shape[-1])
    if valid is None or not sees_unwritten or not operand.simulated:
        return y
    return y + unwritten(x, tokens, valid, operand.axis)


def _without_copies(tokens: Tensor, groups: int | None) -> Tensor:
    """tokens[B, H, N, d] as [B, G, N, d] if they hold the same heads of G groups several times; or else as they are.

    Models with grouped queries copy heads in some calls, such as those with a mask, and not in others.
    """
    if groups is None or tokens.shape[1] <= groups or tokens.shape[1] % groups:
        return tokens
    by_group = tokens.unflatten(1, (groups, -1))
    return by_group[:, :, 0] if bool((by_group == by_group[:, :, :1]).all()) else tokens


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


def unwritten(x: Tensor, tokens: Tensor, valid: Tensor, axis: str) -> Tensor:
    """The part of a product that comes from tokens that are not written, computed digitally.

    A query that sees no token at all is padding itself. A softmax spreads it over all tokens, hidden ones included.
    Nobody uses its result, but it is the same as in the digital model.

    Args:
        x: the left factor [B, H, M, d or N].
        tokens: K or V [B, G, N, d].
        valid: [B or 1, N] True for tokens that are written.
        axis: "K" or "V".

    Returns:
        [B, H, M, N or d].
    """
    hidden, tokens = (~valid)[:, None, None, :].to(x.dtype), every_head(tokens, x.shape[1])
    return (x @ tokens.transpose(-2, -1)) * hidden if axis == "K" else (x * hidden) @ tokens

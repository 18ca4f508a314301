"""Heads of queries that share heads of keys and values.

Shapes: B samples, H heads of queries, G heads of keys and values, M queries, N tokens.
"""

from __future__ import annotations

from torch import Tensor

from ohmformer.nn.operands.kv import KVOperand


def serve(operand: KVOperand, x: Tensor, tokens: Tensor, valid: Tensor | None, queries: int) -> Tensor:
    """Inputs x[B, H, M, I] with tokens[B, G, N, d], each head of which serves H / G heads of inputs: [B, H, M, O]."""
    B, H, M, I = x.shape
    groups = tokens.shape[1]
    own = x if groups == H else x.reshape(B, groups, H // groups * M, I)
    y = operand.product(own, tokens, valid, queries)
    return y.reshape(B, H, M, y.shape[-1])


def multiply(operand: KVOperand, x: Tensor, w: Tensor, groups: int | None, valid: Tensor | None = None) -> Tensor:
    """x[B, H, M, I] with w[B, G, O, I], one of which is written, as the operand says: [B, H, M, O].

    Args:
        operand: holds it.
        x: the left factor.
        w: the right factor, each head of which serves H / G heads of the left one.
        groups: heads of w, copies not counted; None where that is not known.
        valid: [B or 1, tokens] which tokens of w are none of padding.
    """
    if operand.write == "left":
        packed = x.shape[-2] > 1 and operand.causal and _one_token(operand, w, valid)
        heads = x.flatten(1, 2).unsqueeze(2) if packed else x
        y = serve(operand, every_head(w, heads.shape[1]), heads, None, w.shape[-2]).transpose(-2, -1)
        return y.reshape(*x.shape[:-1], w.shape[-2])
    tokens = one_of_each(w if operand.axis == "K" else w.transpose(-2, -1), groups)
    one = x.shape[-2] > 1 and operand.causal and _one_token(operand, tokens, valid)
    return serve(operand, x, tokens, valid, 1 if one else x.shape[-2])


def _one_token(operand: KVOperand, tokens: Tensor, valid: Tensor | None) -> bool:
    """Whether rows of inputs are heads of a single new token that share a head of tokens[B, G, N, d].

    Hugging Face packs them so where one token meets a cache; for `serve` they stand the same as heads that it packs.
    """
    call_info = operand.state.call_info
    if len(call_info.numbers) != len(tokens) or len(call_info.numbers[0]) != 1 or not call_info.written:
        return False
    held = tokens.shape[-2] if valid is None else int(valid.sum(dim=1).max())
    return held <= max(call_info.written)


def one_of_each(tokens: Tensor, groups: int | None) -> Tensor:
    """tokens[B, H, N, d] without the copies of each head, where `groups` heads may come several times in a row each.

    Models with grouped queries do that in some calls, such as those with a mask, and not in others.
    """
    if groups is None or tokens.shape[1] <= groups or tokens.shape[1] % groups:
        return tokens
    heads = tokens.unflatten(1, (groups, -1))
    return heads[:, :, 0] if bool((heads == heads[:, :, :1]).all()) else tokens


def every_head(tokens: Tensor, heads: int) -> Tensor:
    """tokens[B, G, N, d] repeated for H heads of queries: [B, H, N, d]."""
    return tokens if tokens.shape[1] == heads else tokens.repeat_interleave(heads // tokens.shape[1], dim=1)


def unwritten(x: Tensor, w: Tensor, valid: Tensor, axis: str) -> Tensor:
    """What the tokens that are not written add to x[B, H, M, I] times w[B, G, O, I], computed digitally: [B, H, M, O].

    Rows that see no token at all are padding themselves. A softmax spreads them over all tokens, those that are hidden
    among them; nobody looks at such rows, but they come out as the model has them.

    Args:
        x: the left factor.
        w: the right factor.
        valid: [B or 1, tokens] which tokens of w are written.
        axis: "K" where tokens are the outputs O, "V" where they are the inputs I.
    """
    hidden = (~valid)[:, None, None, :].to(x.dtype)
    product = (x if axis == "K" else x * hidden) @ every_head(w, x.shape[1]).transpose(-2, -1)
    return product * hidden if axis == "K" else product

"""Tokenizers of Hugging Face: read beside a model, refused where they hold no words, with something to pad with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ohmformer.errors import BadInput
from ohmformer.models.sources import first_line

UNKNOWN_SHARE = 0.9
"""Texts of whose tokens a larger share is unknown are refused: the tokenizer is not that of the texts or the model."""

NOTED_SHARE = 0.1
"""From this share on, unknown tokens are noted in results."""

LONGEST = 10**9
"""Tokenizers say a larger number where they know of no longest text."""

POSITIONS = re.compile(r"(?:^|\.)(?:position_embeddings?|embed_positions|wpe)$")
"""How tables of learned positions are called, in the models that keep some of them for padding."""


def read_tokenizer(transformers: Any, place: str, options: dict[str, str], said: dict[str, Any] | None) -> Any:
    """The tokenizer of a folder, of a GGUF file, or of a name on the hub.

    Args:
        transformers: the package.
        place: folder or name.
        options: which GGUF file of the folder.
        said: what its tokenizer_config.json holds; None if there is none.

    Raises:
        BadInput: there is none, its files are damaged, or it knows no words.
    """
    longest = (said or {}).get("model_max_length")
    if longest is not None and not _is_length(longest):
        file = Path(place) / "tokenizer_config.json"
        raise BadInput(
            f"{file}: model_max_length = {repr(longest)[:80]}: must be a whole number of tokens, 1 or more; correct "
            "it, or leave it out"
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)
        words = _words(tokenizer)
    except Exception as error:
        raise BadInput(
            f"the tokenizer in {place} cannot be read ({first_line(error)}); put the tokenizer's files there again"
        ) from error
    if words is not None and words < 2:
        files = ", ".join(sorted(set(tokenizer.vocab_files_names.values()) | {"tokenizer.json"}))
        raise BadInput(
            f"the tokenizer in {place} knows no words ({type(tokenizer).__name__}, which reads {files}); put the "
            "tokenizer's files beside the weights"
        )
    return tokenizer


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1 and value == value // 1


def _words(tokenizer: Any) -> int | None:
    """How many tokens it knows besides special ones; None for one that reads characters or bytes, without a list."""
    if not getattr(tokenizer, "vocab_files_names", None):
        return None
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return sum(token not in special for token in tokenizer.get_vocab())


def agree_on_padding(tokenizer: Any, config: Any) -> None:
    """Make tokenizer and model pad with the same token: the tokenizer's, the model's, or one that texts end with.

    Models that classify by the last token look for the one before the padding.
    """
    parts = {id(part): part for part in (config, _text_part(config))}.values()
    known = next((part.pad_token_id for part in parts if isinstance(getattr(part, "pad_token_id", None), int)), None)
    if tokenizer.pad_token is None and known is not None and 0 <= known < len(tokenizer):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(known)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is not None:
        for part in parts:
            part.pad_token_id = tokenizer.pad_token_id


def _text_part(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def longest_text(model: nn.Module, tokenizer: Any) -> int | None:
    """Tokens of the longest text that a model takes; None if neither it nor its tokenizer says.

    RoBERTa and its like number positions from behind that of the padding on, so that the first ones of the table, up to
    its `padding_idx`, are never used. Below 1 means that there is no bound.
    """
    config: Any = getattr(model, "config", None)
    known = []
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value >= 1:
            known.append(value - _reserved(model, value))
            break
    said = getattr(tokenizer, "model_max_length", None)
    if isinstance(said, (int, float)) and 1 <= said < LONGEST:
        known.append(int(said))
    return min(known, default=None)


def _reserved(model: nn.Module, positions: int) -> int:
    """How many rows of its table of positions a model keeps for padding."""
    for name, module in model.named_modules():
        table, padding = getattr(module, "weight", None), getattr(module, "padding_idx", None)
        if POSITIONS.search(name) and isinstance(table, Tensor) and len(table) == positions:
            return padding + 1 if isinstance(padding, int) else 0
    return 0


def check_known(where: str, tokenizer: Any, ids: Iterable[Iterable[int]]) -> tuple[str, ...]:
    """A note where many tokens of some texts are unknown to the tokenizer.

    Args:
        where: how messages begin.
        tokenizer: that made the tokens.
        ids: tokens of each text.

    Raises:
        BadInput: nearly all are unknown, or there are none.
    """
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    tokens = [token for text in ids for token in text]
    read = [token for token in tokens if token not in special]
    unknown = sum(token == tokenizer.unk_token_id for token in read)
    if not read or unknown > UNKNOWN_SHARE * len(read):
        what = f"{unknown} of the {len(read)} tokens of its texts" if read else "all of its texts"
        raise BadInput(
            f"{where}: {what} are unknown to the model's tokenizer ({type(tokenizer).__name__}); give texts in the "
            "language that it was made for, or put the model's own tokenizer beside its weights"
        )
    share = f"{unknown} of {len(read)} tokens are unknown to the model's tokenizer"
    return (share,) if unknown >= NOTED_SHARE * len(read) else ()


def check_numbers(where: str, tokens: Tensor, words: int | None) -> None:
    """Refuse tokens, padding included, for which a model has no word vector.

    Args:
        where: how messages begin.
        tokens: their numbers.
        words: rows of the model's table of word vectors; None if unknown.

    Raises:
        BadInput: one is numbered too high.
    """
    if words is not None and tokens.numel() and int(tokens.max()) >= words:
        raise BadInput(
            f"{where}: the tokenizer numbers a token {int(tokens.max())} (of a text, or the padding) but the model has "
            f"vectors for {words}; put the model's own tokenizer beside its weights"
        )

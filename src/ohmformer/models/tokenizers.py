"""Hugging Face tokenizers: read them beside a model, set a padding token, and check that they fit the texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ohmformer.errors import BadInput, shown
from ohmformer.models.silence_loaders import without_error_output
from ohmformer.models.sources import first_line, is_failure

UNKNOWN_SHARE = 0.9
"""Largest accepted share of unknown tokens. Above it the tokenizer does not fit the language or the model."""

NOTED_SHARE = 0.1
"""Share of unknown tokens from which results carry a note."""

NO_LIMIT = 10**9
"""A `model_max_length` of this or more means that the tokenizer has no limit."""

TRIAL_TEXTS = ("a b c", "d")
"""Texts that a tokenizer must be able to encode."""

POSITION_EMBEDDINGS = re.compile(r"(?:^|\.)(?:position_embeddings?|embed_positions|wpe)$")
"""Names of learned position embeddings, in models that reserve some positions for padding."""


def read_tokenizer(transformers: Any, place: str, options: dict[str, str], config: dict[str, Any] | None) -> Any:
    """Read the tokenizer of a folder, a GGUF file or a name on the hub.

    Args:
        transformers: the package.
        place: folder or name.
        options: options that select a GGUF file in the folder.
        config: content of tokenizer_config.json; None if there is no such file.

    Raises:
        BadInput: there is no tokenizer, its files are damaged, its vocabulary is empty, or its tokens are random.
    """
    max_length = (config or {}).get("model_max_length")
    if max_length is not None and not _is_length(max_length):
        file = Path(place) / "tokenizer_config.json"
        raise BadInput(
            f"{file}: model_max_length = {repr(max_length)[:80]}: must be a whole number of tokens, 1 or more; correct "
            "it, or leave it out"
        )
    try:
        with without_error_output():
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)
            words = _vocabulary_size(tokenizer)
            tokenizer(list(TRIAL_TEXTS), verbose=False)
    except BaseException as error:
        if not is_failure(error):
            raise
        remedy = "install it" if isinstance(error, ImportError) else "put the tokenizer's files there again"
        raise BadInput(f"the tokenizer in {place} cannot be read ({first_line(error)}); {remedy}") from error
    check_room(place, tokenizer)
    _check_dropout(place, tokenizer)
    if words is not None and words < 2:
        files = ", ".join(sorted(set(tokenizer.vocab_files_names.values()) | {"tokenizer.json"}))
        raise BadInput(
            f"the tokenizer in {place} has no vocabulary ({type(tokenizer).__name__}, which reads {files}); put the "
            "tokenizer's files beside the weights"
        )
    return tokenizer


def _check_dropout(place: str, tokenizer: Any) -> None:
    """Refuse a tokenizer that drops merges at random, as some do in training."""
    dropout = getattr(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), "dropout", None)
    if dropout:
        raise BadInput(
            f"{Path(place) / 'tokenizer.json'}: model.dropout = {dropout:g}: gives other tokens at each call; set it "
            "to null"
        )


def check_vocabulary(place: str, tokenizer: Any, words: int | None) -> None:
    """Refuse a tokenizer with more tokens than the model embeds, whether texts use them or not.

    Args:
        place: folder or name of the tokenizer, for the message.
        tokenizer: the tokenizer.
        words: number of rows of the model's token embedding; None if unknown.

    Raises:
        BadInput: the highest token number, of a word or an added token, has no row.
    """
    if words is None or not getattr(tokenizer, "vocab_files_names", None):
        return
    token, number = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if number >= words:
        raise BadInput(
            f"the tokenizer in {place} numbers its tokens up to {number} ({shown(token)}), but the model embeds only "
            f"{words} (0 to {words - 1}); put the model's own tokenizer beside its weights"
        )


def check_room(place: str, tokenizer: Any) -> None:
    """Refuse a tokenizer whose longest text has no room for a word beside the special tokens.

    Raises:
        BadInput: `model_max_length` is not above the number of special tokens of a text.
    """
    limit = getattr(tokenizer, "model_max_length", None)
    try:
        special = int(tokenizer.num_special_tokens_to_add())
    except Exception:  # tokenizers without that method add none that are known
        special = 0
    if isinstance(limit, (int, float)) and limit <= max(special, 1):
        raise BadInput(
            f"{Path(place) / 'tokenizer_config.json'}: model_max_length = {limit}: leaves no room for words beside "
            f"{special} special tokens; raise it, or leave it out"
        )


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1 and value == value // 1


def _vocabulary_size(tokenizer: Any) -> int | None:
    """Return the number of tokens that are not special; None for tokenizers of characters or bytes, without a list."""
    if not getattr(tokenizer, "vocab_files_names", None):
        return None
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return sum(token not in special for token in tokenizer.get_vocab())


def agree_on_pad_token(tokenizer: Any, config: Any) -> None:
    """Give tokenizer and model the same padding token: the tokenizer's, else the model's, else the end-of-text token.

    Models that classify by the last token use this token to find the last one before the padding.
    """
    parts = {id(part): part for part in (config, _text_part(config))}.values()
    pad_id = next((part.pad_token_id for part in parts if isinstance(getattr(part, "pad_token_id", None), int)), None)
    if tokenizer.pad_token is None and pad_id is not None and 0 <= pad_id < len(tokenizer):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_id)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is not None:
        for part in parts:
            part.pad_token_id = tokenizer.pad_token_id


def pad_on_the_side_that_is_not_read(tokenizer: Any, config: Any) -> None:
    """Pad texts on the left for models that classify by the last token, padding or not, as XLNet does."""
    if getattr(config, "summary_type", None) == "last":
        tokenizer.padding_side = "left"


def check_padding(place: str, model: nn.Module) -> None:
    """Refuse a model that numbers positions from its padding token but was built without one.

    ESM does so even if its positions are rotary, without an embedding of positions.

    Raises:
        BadInput: RoBERTa, XLM or their kin have no `pad_token_id` in config.json.
    """
    for module in model.modules():
        names = [name for name in ("padding_idx", "pad_index") if hasattr(module, name)]
        embeds = hasattr(module, "position_embeddings") or hasattr(module, "word_embeddings")
        if embeds and names and getattr(module, names[0]) is None:
            raise BadInput(
                f"{Path(place) / 'config.json'}: pad_token_id is missing, without which {type(model).__name__} cannot "
                "tell words from padding; add the number of the tokenizer's padding token"
            )


def _text_part(config: Any) -> Any:
    """Return the part of a configuration that describes the text model."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def longest_text(model: nn.Module, tokenizer: Any) -> int | None:
    """Return the length of the longest text that a model takes [tokens]; None if neither model nor tokenizer limits it.

    RoBERTa and similar models number positions from `padding_idx + 1` on, so the first rows of their position embedding
    are not available to text. A limit below 1 means that there is none.
    """
    config: Any = getattr(model, "config", None)
    limits = []
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value >= 1:
            limits.append(value - _reserved(model, value))
            break
    max_length = getattr(tokenizer, "model_max_length", None)
    if isinstance(max_length, (int, float)) and 1 <= max_length < NO_LIMIT:
        limits.append(int(max_length))
    return min(limits, default=None)


def _reserved(model: nn.Module, positions: int) -> int:
    """Return how many rows of its position embedding a model reserves for padding."""
    for name, module in model.named_modules():
        table, padding = getattr(module, "weight", None), getattr(module, "padding_idx", None)
        if POSITION_EMBEDDINGS.search(name) and isinstance(table, Tensor) and len(table) == positions:
            return padding + 1 if isinstance(padding, int) else 0
    return 0


def check_known(where: str, tokenizer: Any, ids: Iterable[Iterable[int]]) -> tuple[str, ...]:
    """Check the share of unknown tokens in some texts.

    Args:
        where: beginning of messages.
        tokenizer: the tokenizer that encoded the texts.
        ids: token numbers of each text.

    Returns:
        A note if at least `NOTED_SHARE` of the tokens are unknown, else nothing.

    Raises:
        BadInput: more than `UNKNOWN_SHARE` of the tokens are unknown, or there are no tokens.
    """
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    tokens = [token for text in ids for token in text]
    words = [token for token in tokens if token not in special]
    unknown = sum(token == tokenizer.unk_token_id for token in words)
    if not words or unknown > UNKNOWN_SHARE * len(words):
        what = f"{unknown} of the {len(words)} tokens of its texts" if words else "all of its texts"
        raise BadInput(
            f"{where}: {what} are unknown to the model's tokenizer ({type(tokenizer).__name__}); give texts in the "
            "language that it was made for, or put the model's own tokenizer beside its weights"
        )
    note = f"{unknown} of {len(words)} tokens are unknown to the model's tokenizer"
    return (note,) if unknown >= NOTED_SHARE * len(words) else ()


def check_token_ids(where: str, tokens: Tensor, words: int | None) -> None:
    """Refuse token ids, padding included, beyond the model's token embedding.

    Args:
        where: beginning of messages.
        tokens: token ids, of any shape.
        words: number of rows of the model's token embedding; None if unknown.

    Raises:
        BadInput: a token id is too high.
    """
    if words is not None and tokens.numel() and int(tokens.max()) >= words:
        raise BadInput(
            f"{where}: the tokenizer gives token {int(tokens.max())} (of a text, or the padding) but the model embeds "
            f"only {words}; put the model's own tokenizer beside its weights"
        )

"""What a model expects goes along with its copies."""

from __future__ import annotations

import copy
import pickle

import pytest
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.images import ImagePreparation
from ohmformer.models.preprocessing import Preparation, images_of, preparation, remember, tokenizer_of


def test_copies_and_pickles_of_a_model_know_what_it_expects() -> None:
    known = Preparation(images=ImagePreparation(resize=20, crop=(16, 16)), classes=3, tokenizer=object)
    model = remember(nn.Linear(2, 2), known)
    assert preparation(copy.deepcopy(model)) is known, "what it holds may be large, and does not change"
    assert preparation(copy.copy(model)) is known
    assert preparation(pickle.loads(pickle.dumps(model))) == known
    assert set(model.state_dict()) == {"weight", "bias"}


def test_nothing_is_known_of_other_models() -> None:
    assert preparation(nn.Linear(2, 2)) == preparation(None) == Preparation()


def test_why_there_is_no_preparation_is_told() -> None:
    model = remember(nn.Linear(2, 2), Preparation(missing={"images": "no pictures", "tokenizer": "no words"}))
    with pytest.raises(BadInput, match=r"task\.source = 'x': no pictures"):
        images_of(model, "x")
    with pytest.raises(BadInput, match=r"task\.source = 'x': no words"):
        tokenizer_of(model, "x")
    with pytest.raises(BadInput, match="needs a model that reads text"):
        tokenizer_of(None, "x")

"""What is not new tokens is known by its storage: views of it are known, other tensors at its address are not."""

from __future__ import annotations

import copy

import numpy as np
import torch

from ohmformer.nn.shared.memory import AttendedMemory

MASK = (torch.tensor([[True, True, False], [True, False, False]]),)


def noted(t: torch.Tensor) -> AttendedMemory:
    memory = AttendedMemory()
    memory.note(t, MASK)
    return memory


def test_views_of_a_tensor_are_known() -> None:
    t = torch.randn(2, 3, 4)
    memory = noted(t)
    for view in (t, t.detach(), t.view(6, 4), t.transpose(0, 1), t.view(2, 3, 4)):
        assert memory.mask_of(view) == MASK
    assert memory.mask_of(t[:, :2]) == ()
    assert memory.mask_of(t.clone()) is None


def test_a_part_of_a_storage_does_not_stand_for_all_of_it() -> None:
    both = torch.randn(2, 7, 4)
    memory, tokens = both[:, :3], both[:, 3:]
    known = noted(memory)
    assert known.mask_of(memory) == MASK
    assert known.mask_of(tokens) is None
    assert known.mask_of(both) is None


def test_another_tensor_at_the_same_address_is_not_known() -> None:
    values = np.zeros((2, 3, 4), dtype=np.float32)
    t = torch.from_numpy(values)
    memory = noted(t)
    del t
    other = torch.from_numpy(values)
    assert memory.mask_of(other) is None
    memory.note(torch.randn(2, 3, 4))
    assert len(memory.noted) == 1


def test_copies_start_empty() -> None:
    t = torch.randn(2, 3, 4)
    assert copy.deepcopy(noted(t)).mask_of(t) is None

"""While many objects are made, Python searches for no garbage; then it is as before."""

from __future__ import annotations

import gc

import pytest

from ohmformer.study.results.collection import no_garbage


@pytest.mark.parametrize("before", [True, False])
def test_the_search_for_garbage_is_as_before_at_the_end(before: bool) -> None:
    was = gc.isenabled()
    (gc.enable if before else gc.disable)()
    try:
        with no_garbage():
            with no_garbage():
                pass
            assert not gc.isenabled()
        assert gc.isenabled() == before
        with pytest.raises(KeyError), no_garbage():
            raise KeyError
        assert gc.isenabled() == before
    finally:
        (gc.enable if was else gc.disable)()

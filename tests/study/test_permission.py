"""Permission to run code that a study names."""

from __future__ import annotations

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.permission import check_python
from ohmformer.study.read_study import make_study
from tests.study.small import document


@pytest.mark.parametrize(
    "source",
    [
        *("python:", "python:os", "python::f", "python:os:", "python:os :f", "python:a:b:c"),
        *("python:../a.py:f", "python:/tmp/a:f", "python:.a:f", "python:-h:f", "python:a:f()"),
        *("python:os;id:f", "python:$(id):f", "python:os`id`:f", "python:os&id:f", "python:os|id:f"),
    ],
)
def test_a_source_of_another_form_is_refused_before_permission_is_asked_for(source: str) -> None:
    study = make_study(document(model={"source": source}))
    with pytest.raises(BadInput, match=r"s\.toml: model\.source = .*: write python:MODULE:FUNCTION$"):
        check_python([point.settings for point in study.points], ["os", "os ", "a"], "s.toml")


def test_the_option_that_the_message_names_is_enough() -> None:
    settings = [point.settings for point in make_study(document(model={"source": "python:my-lab.a:f"})).points]
    with pytest.raises(BadInput, match=r"add --allow-python my-lab\.a --allow-python tests\.study\.small$"):
        check_python(settings, [], "")
    check_python(settings, ["my-lab", "tests.study.small"], "")


@pytest.mark.parametrize("name", ["", "os;id", "../a.py", "a b", "-h", "os\n"])
def test_what_is_not_the_name_of_a_module_cannot_be_allowed(name: str) -> None:
    settings = [point.settings for point in make_study(document()).points]
    with pytest.raises(BadInput, match=r"^--allow-python '.*': is not the name of a module; write it without path"):
        check_python(settings, [name], "")

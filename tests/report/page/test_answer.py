"""One sentence on all series at the largest swept number."""

from __future__ import annotations

from ohmformer.report.page.answer import at_most_noise
from tests.report.results import study, swept


def test_every_series_is_named_at_the_most_noise() -> None:
    found = at_most_noise(swept({"none": {0.0: 0.9, 7.0: 0.4}, "calibrated": {0.0: 0.9, 7.0: 0.6}}))
    assert found.startswith("At write noise γ = 7, accuracy is ")
    assert found.endswith(" in software, 40.0 % with no mitigation and 60.0 % with ClipFormer, calibrated.")


def test_a_study_without_series_has_no_such_sentence() -> None:
    assert at_most_noise(study()) == ""

"""Which guidance does a model itself ask for? The measure of NAG-PAG Calibrate beside the judges' gains.

python3 lab/host.py run -- lab/run.py calibrate: on the models whose pictures of the choosing set are kept (`lab/run.py
choosing` makes them). What is measured is kept, so that a run resumes.
"""

from __future__ import annotations

import torch

from . import calibration_page, calibration_plot, recovery
from .subjects import Subject, subject_of

MODELS = ("0", "1", "2", "0s")


def main(arguments: list[str]) -> int:
    """Measure recovery on the named models, such as 0 0s, or on all; write the page and its plot."""
    torch.set_num_threads(1)
    try:
        asked = [subject_of(word) for word in arguments] or [Subject(name) for name in MODELS]
    except ValueError as error:
        raise SystemExit(f"calibrate: {error}") from None
    found = [one for subject in asked if (one := recovery.look(subject))]
    if not found:
        raise SystemExit("no pictures of the choosing set are kept: lab/run.py choosing makes them")
    text = calibration_page.page(found)
    calibration_page.PAGE.write_text(text)
    calibration_plot.draw(found, calibration_page.PLOT)
    print(text)
    return 0

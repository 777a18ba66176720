"""Which guidance does a model itself ask for? Signals that need no judge, beside the judges' gains: docs/calibration.md

python3 lab/host.py run -- lab/run.py calibrate: alignment on two of the trained models, recovery on those whose
pictures of the choosing set are kept (make evidence makes them). What is measured is kept, so that a run resumes.
"""

from __future__ import annotations

import torch

from . import alignment, calibration_page, calibration_plots, recovery, runs
from .runs import Subject

SEEDS = range(6)  # of the models that recovery is looked at on


def main(arguments: list[str]) -> int:
    """Measure alignment on the named models, such as 0 1, and recovery on all; write the page and its plots."""
    subjects = [runs.subject_of(word) for word in arguments or ["0", "1"]]
    torch.set_num_threads(1)
    wanted = alignment.settings()
    models = [alignment.model(subject, alignment.measure(subject.file, wanted)) for subject in subjects]
    found = [one for seed in SEEDS if (one := recovery.look(Subject(seed)))]
    if not found:
        raise SystemExit("no pictures of the choosing set are kept: lab/run.py choosing candidates makes them")
    text = calibration_page.page(models, found)
    calibration_page.PAGE.write_text(text)
    calibration_plots.draw_alignment(models, calibration_plots.ALIGNMENT)
    calibration_plots.draw_recovery(found, calibration_plots.RECOVERY)
    print(text)
    return 0

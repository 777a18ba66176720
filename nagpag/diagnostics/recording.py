"""A record hung on a model: what guidance reports into while that model samples."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP

from ..patch.fallback import attempt, words_of
from ..patch.forward import Forward
from ..patch.plan import PLANS, RECORDINGS, Plan
from ..patch.report import plan_summary, why_nothing
from ..patch.run import Run
from .record import Evaluations, Guidance, Record, Recording

KEY = "nag_pag_record"

log = logging.getLogger("nag_pag_flux")


def record_model(model: Any, record: Record) -> Any:
    """Return a clone of a ComfyUI MODEL that reports into `record` what guidance does, applied before or after this.

    Without guidance on it the clone samples as the model does.
    """
    recorded = model.clone()
    recorded.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, record_runs(record))
    return recorded


def record_runs(record: Record) -> Callable:
    """The OUTER_SAMPLE wrapper: each sampling run is a recording of its own."""

    def wrapper(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        reporter = attempt(lambda: _begin(executor.class_obj), _complain)
        if reporter is None:
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        try:
            samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        except comfy.model_management.InterruptProcessingException:
            _close(reporter, record, "interrupted", sigmas)
            raise
        except BaseException as error:
            _close(reporter, record, words_of(error))
            raise
        _close(reporter, record, "finished", sigmas, samples)
        return samples

    return wrapper


def _begin(guider: Any) -> Reporter:
    options = guider.model_options["transformer_options"]
    reporter = Reporter(options.get(PLANS, ()), options)
    # The guider's options are this run's own copy. A tuple, so that a second record finds the first.
    options[RECORDINGS] = (*options.get(RECORDINGS, ()), reporter)
    return reporter


def _close(reporter: Reporter, *args: Any) -> None:
    attempt(lambda: reporter.end(*args), _complain)


def _complain(error: Exception) -> None:
    log.warning("NAG-PAG: nothing recorded of this sampling: %s", words_of(error))


class Reporter:
    """What guidance reports to during one run.

    plans: every application of the node on the model, also switched off. options: the run's, which hold what a sampling
    was that broke off before it could report.
    """

    def __init__(self, plans: tuple[Plan, ...], options: dict):
        self.recording = Recording()
        self.plans = plans
        self.options = options
        self.runs: dict[str, Run] = {}

    def __deepcopy__(self, memo: dict) -> Reporter:
        """Itself: packs copy a model's options deeply while it samples."""
        return self

    def add(self, plan: Plan, run: Run, forward: Forward, numbers: torch.Tensor | None) -> None:
        """Take what one forward left. numbers: (merges, 5), on the device; None where nothing was guided."""
        self.runs[plan.key] = run
        if numbers is None or plan not in self.plans:
            return
        guidance, merges = self.plans.index(plan), forward.merges
        names = tuple(plan.name(merge.position) for merge in merges)
        sigma = numbers.new_zeros(()) if forward.sigmas is None else forward.sigmas[0]
        strengths = tuple(plan.scale(merge.position) * forward.y for merge in merges)
        reused = tuple(merge.reused for merge in merges)
        self.recording.pending.append(Evaluations(guidance, sigma, numbers, names, strengths, reused))
        for name, merge in zip(names, merges, strict=True):
            if merge.first:
                # A copy: what a compiled graph hands out may be overwritten by its next run.
                self.recording.maps[guidance, name] = merge.moved.reshape(forward.grid).clone()

    def end(
        self, record: Record, state: str, sigmas: torch.Tensor | None = None, samples: torch.Tensor | None = None
    ) -> None:
        """Close the recording, with numbers where sigmas are given, and keep it."""
        self.recording.state = state
        self.recording.guidances = [_guidance(plan, self._run(plan)) for plan in self.plans]
        if sigmas is None:
            self.recording.drop()
        else:
            self.recording.close(sigmas, samples)
        record.keep(self.recording)
        self.runs.clear()
        self.options = {}

    def _run(self, plan: Plan) -> Run | None:
        return self.runs.get(plan.key) or self.options.get(plan.run_key)


def _guidance(plan: Plan, run: Run | None) -> Guidance:
    positions = plan.blocks if plan.merge is None else (plan.merge,)
    names = tuple(plan.name(position) for position in positions)
    settings = {f.name: getattr(plan.settings, f.name) for f in dataclasses.fields(plan.settings)}
    settings |= {name: getattr(plan.settings, name) is not None for name in ("curve", "negative_conditioning")}
    return Guidance(plan_summary(plan), settings, names, _problem(plan, run))


def _problem(plan: Plan, run: Run | None) -> str:
    if plan.settings.off:
        zero = next(name for name in ("scale", "alpha", "perturbation") if getattr(plan.settings, name) == 0)
        return f"guidance is switched off: {zero} is 0"
    if not plan.acts:
        return "guidance is switched off: every chosen block has scale 0"
    if run is None or not run.guided:
        return f"guided nothing: {why_nothing(plan, run)}"
    missing = [plan.name(p) for p in sorted(plan.needed(run.carried) - run.reached)]
    failed = [plan.name(p) for p in sorted(run.failed)]
    said = [f"never reached: {', '.join(missing)}"] if missing else []
    return "; ".join([*said, f"gave up after an error: {', '.join(failed)}"] if failed else said)

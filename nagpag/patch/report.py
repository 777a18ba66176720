"""What is said of guidance in words: its settings, and at the end of a sampling what it did or why it did nothing."""

from __future__ import annotations

import logging

import comfy.model_management
import torch
from torch import Tensor

from ..inputs.guidance import BLOCKS, DISTURBING, INPUTS
from ..measure import CHANGE, CLAMPED
from ..schedule import steps_of
from ..settings import Settings
from .fallback import words_of
from .forward import Forward
from .plan import RECORDINGS, Plan
from .run import Run

log = logging.getLogger("nag_pag_flux")


def summary(settings: Settings, carried: bool = False) -> str:
    """The settings in a few words. carried: there was a negative prompt, and the branch was not disturbed."""
    part = (settings.start_percent, settings.end_percent)
    words = [f"scale {settings.scale:g}", f"tau {settings.tau:g}", f"alpha {settings.alpha:g}"]
    if not carried:
        words.append(_branch(settings))
    if part != (0.0, 1.0):
        words.append(f"from {part[0]:.0%} to {part[1]:.0%} of the sampling")
    if settings.varies:
        words.append("along a curve" if settings.curve else settings.schedule)
    if settings.guide_unconditional and not carried:
        words.append("unconditional rows too")
    return ", ".join(words)


def _branch(settings: Settings) -> str:
    temperature = f" at temperature {settings.temperature:g}" if settings.negative == "softened" else ""
    share = f" by {settings.perturbation:g}" if settings.perturbation != 1 else ""
    return f"{settings.negative}{temperature}{share}"


def plan_summary(plan: Plan) -> str:
    """What is guided and how, in a few words."""
    merged = f", {plan.merged}" if plan.merged else ""
    carried = "a negative prompt, or without one " if plan.settings.carries_negative else ""
    return f"{carried}{plan.words(plan.chosen.values()) or 'no blocks'}{merged}: {summary(plan.settings)}"


def idle(settings: Settings) -> list[str]:
    """What was set away from its default and does nothing beside the other settings, each in a sentence."""
    found = []
    for item in INPUTS:
        value = getattr(settings, item.name)
        if value != item.default and item.needs and not any(n.met(getattr(settings, n.name)) for n in item.needs):
            others = " and ".join(_said(need.name, getattr(settings, need.name)) for need in item.needs)
            found.append(f"{_said(item.name, value)} does nothing with {others}")
    return found


Prompt = tuple[Tensor, Tensor | None]  # a prompt's text, (rows, tokens, features), and its pooled vector


def say_no_negative(plan: Plan, zeroed: bool = False) -> None:
    """Warn that a negative prompt was asked for and there is none. zeroed: there is one of zeros, which is no text."""
    log.warning(
        "NAG-PAG: negative_prompt has nothing to carry, so %s: %s. Wire a negative prompt to the "
        "sampler (CLIP Text Encode; an empty one will do), or to negative_conditioning of NAG-PAG Guidance (Advanced).",
        "guidance does without it" if plan.disturbs else f"nothing is guided, as {_why_undisturbed(plan)}",
        "the wired one is all zeros (ConditioningZeroOut), which is no text" if zeroed else "this sampler has none",
    )


def _why_undisturbed(plan: Plan) -> str:
    if not plan.family.stacks:
        return "this model is of no family whose attention can be disturbed"
    return "perturbation is 0" if plan.chosen else "no block is chosen whose attention is disturbed"


def say_if_same(negatives: list[Prompt], prompts: list[Prompt]) -> None:
    """Warn where a negative prompt can't do anything, as it is a prompt itself."""
    if any(all(map(_same, negative, prompt)) for negative in negatives for prompt in prompts):
        log.warning("NAG-PAG: the negative prompt is the prompt itself: nothing is pushed away.")


def say_enlarged(run: Run) -> None:
    """Warn once where cfg enlarges what was to be pushed once."""
    words = "cfg enlarges the push"
    if words not in run.said:
        run.said.add(words)
        log.warning(
            "NAG-PAG: another patch works out the negative prompt before the prompt, so that cfg enlarges the push. "
            "Lower scale, or set cfg to 1.0."
        )


def say_uncompiled(run: Run) -> None:
    """Warn once that what torch.compile made of the model is left out."""
    words = "torch.compile is left out"
    if words not in run.said:
        run.said.add(words)
        log.warning(
            "NAG-PAG: torch.compile is left out where guidance works inside the model. Its node (TorchCompileModel) "
            "does not look at what patches a model: a step compiled for other guidance, or for none, would be run in "
            "this one's place. With reach prediction and a negative prompt it stays."
        )


def say_needless(settings: Settings) -> None:
    """Say what was set and does nothing where the branch carries a negative prompt."""
    # What says where the merge is does something all the same.
    placed = settings.reach_blocks > 0 or settings.reach in ("attention", "double blocks")
    items = [item for item in DISTURBING if item is not BLOCKS or not placed]
    values = [(item, getattr(settings, item.name)) for item in items]
    if chosen := [_said(item.name, value) for item, value in values if value != item.default]:
        log.info("NAG-PAG: the branch carries a negative prompt, so that nothing is done by %s.", ", ".join(chosen))
    if settings.guide_unconditional:
        log.info("NAG-PAG: guide_unconditional does nothing, as the branch carries a negative prompt.")


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.equal(one, other)


def _said(name: str, value: object) -> str:
    if value is None:
        return f"no {name}"
    if not isinstance(value, str | int | float):
        return f"a {name}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def ending(error: BaseException) -> str:
    """How a sampling ended that did not go well, in words."""
    if isinstance(error, comfy.model_management.InterruptProcessingException):
        return "the sampling was interrupted"
    return f"the sampling ended in an error, {words_of(error):.200}"


def take_down(plan: Plan, run: Run, forward: Forward, transformer_options: dict) -> None:
    """What a forward has guided goes into its run, and into every record of it.

    As new tensors: a compiled graph may overwrite what it handed out.
    """
    run.guided |= forward.guided
    run.tried |= bool(forward.chunks)
    numbers = torch.stack([merge.numbers for merge in forward.merges]) if forward.merges else None
    if numbers is not None:
        run.statistics.append(torch.stack((numbers[:, CHANGE], numbers[:, CLAMPED]), dim=1))
    elif forward.statistics:
        run.statistics.append(torch.stack([torch.stack(pair) for pair in forward.statistics]))
    for recording in transformer_options.get(RECORDINGS, ()):
        recording.add(plan, run, forward, numbers)
    if forward.guided and forward.sigmas is not None:
        run.guided_sigmas.append(forward.sigmas[0])
        if any(not chunk.reuses for chunk in forward.chunks):
            run.renewed_sigmas.append(forward.sigmas[0])


def report(plan: Plan, run: Run) -> None:
    """One line that says what was guided, and a warning for needed blocks that the model never called."""
    if not run.ended and run.forwards and not run.complained:
        _warn_unreached(plan, run)
    if plan.settings.carries_negative and run.forwards and not run.heard_negative:
        say_no_negative(plan)
    if run.unclear:
        log.warning(
            "NAG-PAG: %d of %d forwards not guided: another patch (a model function wrapper) runs the batch in parts "
            "of its own and does not say which rows are the prompt's. Switch it off, or set cfg to 1.0.",
            run.unclear,
            run.forwards,
        )
    if run.untold and run.renewed_every(plan.settings) > 1:
        log.warning(
            "NAG-PAG: renew_every saved nothing in %d of %d forwards: the model is run on tiles, in context windows "
            "that move from step to step, or in a batch of another node's own, and no kept difference belongs to these "
            "for sure. The branch was computed there.",
            run.untold,
            run.forwards,
        )
    if not run.guided:
        log.info("NAG-PAG guided nothing: %s.", why_nothing(plan, run))
        return
    # Only a run that went well is asked for its numbers: after an error the device may not answer.
    detail = f"stopped early, as {run.ended}" if run.ended else f"{_steps(plan, run)}, {_means(run)}"
    failed = f" {plan.names(sorted(run.failed))} failed, as said above." if run.failed else ""
    log.info("NAG-PAG guided %s: %s (%s).%s", _what(plan, run), detail, summary(plan.settings, run.carried), failed)


def _what(plan: Plan, run: Run) -> str:
    """What guided: blocks, and a negative prompt."""
    blocks = plan.words(plan.chosen[position] for position in run.guided_blocks(plan))
    return " and ".join(part for part in ("by a negative prompt" if run.carried else "", blocks) if part)


def why_nothing(plan: Plan, run: Run | None) -> str:
    """Why a run guided nothing, in words."""
    if run is not None and run.complained:
        return "it failed, as said above"
    if run is None or not run.begun:
        return "the model was not called" + (f": {run.ended}" if run is not None and run.ended else "")
    if not run.forwards:
        return run.ended or "no forward of the model came to its end"
    if run.heard_negative and not run.carried and not plan.disturbs:
        return "there was no negative prompt, as said above, and nothing else disturbs the branch"
    if run.unclear:
        return "nobody told the prompt's rows from others, as said above"
    if plan.at_prediction and not run.asked:
        return (
            "another patch works out the prompts in a way of its own (sampler_calc_cond_batch_function), where the "
            "prediction can't be reached. Switch it off"
        )
    if not run.tried:
        return (
            "no step of this sampling lay between start_percent and end_percent with a strength above 0, "
            "or no row was conditional"
        )
    if run.failed:
        return "it failed, as said above"
    return "the blocks were called without options, as said above" if run.blind else "no chosen block was reached"


def _steps(plan: Plan, run: Run) -> str:
    steps = f"{_count_steps(run, run.guided_sigmas)} steps"
    if plan.merge is None and not run.carried:
        return steps
    return f"{steps}, branch {plan.merged} and computed at {_count_steps(run, run.renewed_sigmas)} of them"


def _count_steps(run: Run, sigmas: list[Tensor]) -> int:
    """In how many of the sampler's steps these evaluations lie."""
    found = _numbers([sigma.reshape(1) for sigma in sigmas]) if sigmas else []
    return len(set(found if run.schedule is None else steps_of(found, run.schedule.tolist())))


def _numbers(tensors: list[Tensor]) -> list:
    """The rows of all: they cross from the device together, from several devices by way of the first."""
    return torch.cat([tensor.to(tensors[0].device) for tensor in tensors]).tolist()


def _means(run: Run) -> str:
    if not run.statistics:
        return "change not measured"
    pairs = _numbers(run.statistics)
    change, limited = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return f"mean change {change:.1%}, {limited:.0%} of tokens at the limit"


def _warn_unreached(plan: Plan, run: Run) -> None:
    # At the prediction blocks are asked for nothing but a branch of their own.
    needed = plan.needed(run.carried) if run.tried or not plan.at_prediction else set()
    run.blind = {position for position, call in plan.calls.items() if call.without_options} & needed - run.reached
    lost = {position for position, call in plan.calls.items() if call.failed}
    taken = sorted((run.replaced & needed) - run.reached - run.blind - lost)
    silent = sorted(needed - run.reached - run.replaced - run.blind - lost)
    if run.blind:
        log.warning(
            "NAG-PAG: %s not guided: another pack's forward calls blocks without ComfyUI's transformer_options, in "
            "which guidance travels (older TeaCache, MagCache, PuLID). Switch that off, or look for a newer one.",
            plan.names(sorted(run.blind)),
        )
    if taken:
        log.warning(
            "NAG-PAG: %s not guided: a node after NAG-PAG Guidance replaced it without "
            "calling what was there. Put NAG-PAG Guidance after that node.",
            plan.names(taken),
        )
    if silent:
        log.warning(
            "NAG-PAG: %s never reached: another patch skips it or replaced the model's forward%s "
            "(a block cache, a layer skip, another pack's own forward). Switch that off, or choose other blocks.",
            plan.names(silent),
            "" if plan.family.slots else ", or its attention, without calling what was there (an attention override)",
        )

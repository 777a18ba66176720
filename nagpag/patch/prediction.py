"""Guidance of the prediction: here the negative branch is a whole evaluation of the model, worked out by the host.

What the sampler is given of the prompt, as the noise v = (x − x₀) / σ that it takes for a step, is pushed away from
that of the negative prompt, or of the prompt with a disturbed attention (PAG, arXiv 2403.17377) where there is none.
Computed at every step and without a limit that is classifier-free guidance (arXiv 2207.12598); it is the difference of
the noises that is held in between, as that of the pictures shrinks with the noise. Whatever the host does with a
condition (areas, masks, ControlNets, hooks, context windows) it does with both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from .fallback import attempt, leave_alone
from .forward import NEGATIVE_MARK, Chunk, Forward, Visit
from .merge import guide_in_place, noting
from .plan import RECORDINGS, Plan
from .report import take_down
from .run import Held, Run
from .step import noise_level, strength_of

# The host's work for a CALC_COND_BATCH wrapper: numbered lists of conditions, a latent, its noise level, options.
Evaluate = Callable[[Any, list, Tensor, Tensor, dict], list[Tensor]]


def guided_predictions(
    plan: Plan, run: Run, evaluate: Evaluate, model: Any, conds: list, x: Tensor, sigma: Tensor, options: dict
) -> list[Tensor]:
    """What the host predicts of each list of conditions, (batch, channels, …), those of the prompt guided.

    The arguments behind `evaluate` are the host's, and it is called with the same where guidance has nothing to do or
    fails.
    """
    begin = lambda: _begin(plan, run, model, conds, x, sigma, options["transformer_options"])  # noqa: E731
    forward = attempt(begin, lambda error: leave_alone(run, error))
    if forward is None or not forward.chunks:
        return evaluate(model, conds, x, sigma, options)
    both = attempt(
        lambda: _predictions(plan, run, forward, evaluate, model, conds, x, sigma, options),
        lambda error: leave_alone(run, error),
    )
    if both is None:
        return evaluate(model, conds, x, sigma, options)
    plain, negative = both
    guided = attempt(
        lambda: _guide(plan, run, forward, plain, negative, x, sigma, options["transformer_options"]),
        lambda error: leave_alone(run, error),
    )
    return plain if guided is None else guided


def _begin(plan: Plan, run: Run, model: Any, conds: list, x: Tensor, sigma: Tensor, options: dict) -> Forward | None:
    """What is to be guided here, with the differences that stand in for a branch; None where nothing can be."""
    run.asked += 1
    if run.complained or NEGATIVE_MARK in options:  # another application asks for its own branch
        return None
    level = noise_level(plan, sigma)
    run.schedule = options.get("sample_sigmas")
    run.at(level)
    y = strength_of(plan.settings, model.model_sampling.percent_to_sigma, level)
    works = bool(run.against) or (plan.disturbs and not run.failed)
    chunks = tuple(_chunks(plan, run, conds, x, options)) if y > 0 and works else ()
    if y == 0:
        run.forget_differences()  # what was computed before a pause is old
    if _place_of(run.against, conds) is None:  # where cfg asks for it, it costs nothing to have it anew
        for chunk in chunks:
            _hand_out(plan, run, chunk)
    recorded = bool(options.get(RECORDINGS))
    visits = {plan.depth: Visit(plan.depth)}
    return Forward(chunks, len(x), _grid(x), sigma, run, recorded, y=y, strength=y, visits=visits)


def _chunks(plan: Plan, run: Run, conds: list, x: Tensor, options: dict) -> list[Chunk]:
    """A chunk for each list of conditions that is guided."""
    both = plan.settings.guide_unconditional and not run.against
    rows = slice(0, len(x))
    guided = [(i, listed) for i, listed in enumerate(conds) if listed and (i in run.conditional or both)]
    return [Chunk(rows, _key(run, i, listed, x, options), i) for i, listed in guided]


def _list_of(chunk: Chunk) -> int:
    """Which of the lists of conditions it is."""
    assert chunk.index is not None
    return chunk.index


def _key(run: Run, index: int, listed: list[dict], x: Tensor, options: dict) -> tuple | None:
    """What tells a list of conditions, and the part of the latent that it is for, from others; None if nobody says."""
    window = options.get("context_window")
    place: Hashable = None if window is None else tuple(window.index_list)
    if place is None and run.latent is not None and x.shape != run.latent.shape:
        run.untold += 1
        return None
    return (index, tuple(cond.get("uuid") for cond in listed), tuple(x.shape), place)


def _hand_out(plan: Plan, run: Run, chunk: Chunk) -> None:
    """Give a chunk the difference that stands in for its branch, save where that must be computed anew.

    What other nodes ask for within one evaluation of the sampler (a skipped layer, say) shares that one's difference.
    """
    held = None if chunk.condition is None else run.held.get(chunk.condition)
    if held is not None and (held.evaluation == run.evaluation or 0 < _age(run, held) < plan.settings.renew_every):
        chunk.difference = held.difference


def _age(run: Run, held: Held) -> int:
    """How many of the sampler's steps ago it was computed."""
    return 0 if held.sigma is None or run.sigma is None else run.steps_between(held.sigma)


def _grid(x: Tensor) -> tuple[int, int]:
    """The places of a latent, (height, width), a video's frames below one another; one place where they are packed."""
    return (x[0, 0].numel() // x.shape[-1], x.shape[-1]) if x.ndim > 3 else (1, 1)


# --- the branch ---


def _predictions(
    plan: Plan,
    run: Run,
    forward: Forward,
    evaluate: Evaluate,
    model: Any,
    conds: list,
    x: Tensor,
    sigma: Tensor,
    options: dict,
) -> tuple[list[Tensor], dict[int, Tensor]]:
    """The host's predictions, and by list those of the branches that are computed here."""
    missing = [_list_of(chunk) for chunk in forward.chunks if chunk.difference is None]
    if missing and run.against:
        against = _negative_here(run, x, options)
        wanted, place = _beside(conds, against)
        found = evaluate(model, wanted, x, sigma, options)
        # In the place of a list that nobody wants the host gives zeros.
        plain = [one if listed else torch.zeros_like(one) for one, listed in zip(found, conds, strict=False)]
        return plain, dict.fromkeys(missing, found[place])
    plain = evaluate(model, conds, x, sigma, options)
    marked = {**options["transformer_options"], NEGATIVE_MARK: True, plan.disturbed_key: True}
    own = {**options, "transformer_options": marked}
    negative = {i: evaluate(model, [conds[i]], x, sigma, own)[0] for i in missing}
    if negative and run.failed:
        return plain, {}  # the attention was not disturbed, as was said there
    return plain, negative


def _beside(conds: list, against: list[dict]) -> tuple[list, int]:
    """The lists with that of the negative prompt among them, and its place: where it is, or where none is wanted.

    At cfg 1 that is where the host has it with cfg above 1, so that other patches see what they know.
    """
    place = _place_of(against, conds)
    if place is not None:
        return conds, place
    place = next((i for i, listed in enumerate(conds) if i and listed is None), len(conds))
    return [*conds[:place], against, *conds[place + 1 :]], place


def _place_of(against: list[dict], conds: list) -> int | None:
    """Which list is the negative prompt's; None where it is not among them."""
    names = [cond.get("uuid") for cond in against]
    found = (i for i, listed in enumerate(conds) if listed and [cond.get("uuid") for cond in listed] == names)
    return next(found, None) if names else None


def _negative_here(run: Run, x: Tensor, options: dict) -> list[dict]:
    """The negative prompt's conditions, cut to the window of a video that is worked out."""
    window = options["transformer_options"].get("context_window")
    if window is None or run.latent is None:
        return run.against
    if run.latent.ndim < 4:
        raise ValueError("picture and sound in one latent can't be cut to context windows here. Take reach output")
    return options["context_handler"].get_resized_cond(run.against, run.latent, window)


# --- the merge ---


def _guide(
    plan: Plan,
    run: Run,
    forward: Forward,
    plain: list[Tensor],
    negative: dict[int, Tensor],
    x: Tensor,
    sigma: Tensor,
    options: dict,
) -> list[Tensor]:
    """The predictions, those of the guided lists pushed.

    Away from a negative prompt what cfg subtracts moves as the prompt's does: cfg above 1 is not to enlarge the push.
    """
    out = list(plain)
    for chunk in forward.chunks:
        index = _list_of(chunk)
        if index in negative:
            chunk.renewed = (plain[index] - negative[index]) / _along(sigma, x)
        difference = chunk.difference if chunk.renewed is None else chunk.renewed
        if difference is not None:
            out[index] = _pushed(plan, forward, chunk, plain[index], difference, x, sigma)
    if run.against and forward.guided:
        _move_others(forward, out, plain)
    _keep(plan, run, forward)
    take_down(plan, run, forward, options)
    return out


def _move_others(forward: Forward, out: list[Tensor], plain: list[Tensor]) -> None:
    """Move the predictions that are not guided as the first that is."""
    guided = [_list_of(chunk) for chunk in forward.chunks]
    first = guided[0]
    for i in range(len(out)):
        if i not in guided:
            out[i] = plain[i] + (out[first] - plain[first])


def _pushed(
    plan: Plan, forward: Forward, chunk: Chunk, plain: Tensor, difference: Tensor, x: Tensor, sigma: Tensor
) -> Tensor:
    """x₀ with its noise pushed away from the branch's. difference: v⁻ − v⁺, as all of them (batch, channels, …)."""
    sigma = _along(sigma, x)
    v = _tokens((x - plain) / sigma)
    guided = v.clone()
    note = noting(forward, forward.visits[plan.depth], chunk, plan.settings.tau)
    guide_in_place(guided, v + _tokens(difference), plan.settings.scale * forward.y, plan.settings, note)
    # By the change alone, so that a token that keeps Z⁺ keeps its value to the bit.
    return plain - sigma * _latent(guided - v, plain)


def _along(sigma: Tensor, x: Tensor) -> Tensor:
    """The noise level of each row beside its latent."""
    return sigma.reshape(-1, *[1] * (x.ndim - 1)).to(x.device)


def _tokens(v: Tensor) -> Tensor:
    """(batch, channels, …) as (batch, tokens, 1, channels): a token is a place of the latent.

    Where several latents are packed in one row, (batch, 1, numbers), places are not known: all is one token.
    """
    return v.flatten(2).transpose(1, 2).unsqueeze(2) if v.ndim > 3 else v.flatten(1)[:, None, None]


def _latent(tokens: Tensor, like: Tensor) -> Tensor:
    """The other way round."""
    if like.ndim > 3:
        tokens = tokens.squeeze(2).transpose(1, 2)
    return tokens.reshape(like.shape)


def _keep(plan: Plan, run: Run, forward: Forward) -> None:
    """Keep what was computed here for the steps to come, and nothing that is too old for them."""
    new: dict[Hashable, Held] = {
        chunk.condition: Held(chunk.renewed, run.evaluation, run.sigma)
        for chunk in forward.chunks
        if chunk.renewed is not None and chunk.condition is not None
    }
    if not new:
        return
    young = {key: held for key, held in run.held.items() if _age(run, held) < plan.settings.renew_every}
    run.held = {**young, **new}

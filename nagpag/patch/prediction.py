"""Guidance of the prediction: here the negative branch is a whole evaluation of the model, worked out by the host.

What the sampler is given of the prompt, as the noise v = (x − x₀) / σ that it takes for a step, is pushed away from
that of the negative prompt, or of the prompt with a disturbed attention (PAG, arXiv 2403.17377) where there is none.
Computed at every step and without a limit that is classifier-free guidance (arXiv 2207.12598); it is the difference of
the noises that is held in between, as that of the pictures shrinks with the noise. Whatever the host does with a
condition (areas, masks, ControlNets, hooks, context windows) it does with both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .caches import cache_on
from .fallback import attempt, leave_alone
from .forward import NEGATIVE_MARK, Chunk, Forward, Visit
from .merge import guide_in_place, noting
from .plan import RECORDINGS, Plan
from .report import say_enlarged, take_down
from .run import KeptNoise, Run
from .step import noise_level, strength_of


class Asked(NamedTuple):
    """What the host is asked for by its sampler: `evaluate` does its work, and the rest is what that is given.

    conds: numbered lists of conditions, one that is not wanted is None; x: a latent, (batch, channels, …); sigma: its
    noise level, (batch,). against: which of the lists is the negative prompt's, None where it is not among them.
    """

    evaluate: Callable[[Any, list, Tensor, Tensor, dict], list[Tensor]]
    model: Any
    conds: list
    x: Tensor
    sigma: Tensor
    options: dict
    against: int | None = None

    def predictions(self, conds: list) -> list[Tensor]:
        """What the host predicts of each list of conditions, (batch, channels, …)."""
        return self.evaluate(self.model, conds, self.x, self.sigma, self.options)

    def told(self, **more: Any) -> Asked:
        """The same with more transformer options."""
        return self._replace(options={**self.options, "transformer_options": {**self.transformer_options, **more}})

    @property
    def transformer_options(self) -> dict:
        """What the model's blocks are told."""
        return self.options["transformer_options"]

    @property
    def part(self) -> Hashable:
        """Of which part of the whole latent it is, where the host works that out in context windows."""
        window = self.transformer_options.get("context_window")
        return tuple(self.x.shape), None if window is None else tuple(window.index_list)

    @property
    def level(self) -> Tensor:
        """The noise level of each row beside its latent."""
        return self.sigma.reshape(-1, *[1] * (self.x.ndim - 1)).to(self.x.device)


def guided_predictions(plan: Plan, run: Run, asked: Asked) -> list[Tensor]:
    """What the host predicts of each list of conditions, those of the prompt guided.

    It is what the host gives by itself where guidance has nothing to do or fails.
    """
    give_up = lambda error: leave_alone(run, error)  # noqa: E731
    begun = attempt(lambda: _begin_evaluation(plan, run, asked), give_up)
    if begun is None:
        return asked.predictions(asked.conds)
    forward, ours = begun
    found = attempt(lambda: _with_negative(run, forward, ours), give_up)
    if found is None:
        plain = ours.predictions(ours.conds)
        negative = None if run.complained else attempt(lambda: _disturbed(plan, run, forward, ours), give_up)
    else:
        plain, negative = found
    guided = attempt(lambda: _guide(plan, run, forward, ours, plain, negative or {}), give_up)
    return plain if guided is None else guided


def _begin_evaluation(plan: Plan, run: Run, asked: Asked) -> tuple[Forward, Asked] | None:
    """What is to be guided here, and how the host is asked; None where nothing can be."""
    run.asked += 1
    options = asked.transformer_options
    if run.complained or NEGATIVE_MARK in options:  # another application asks for its own branch
        return None
    level = noise_level(plan, asked.sigma)
    run.schedule = options.get("sample_sigmas")
    run.at(level)
    y = strength_of(plan.settings, asked.model.model_sampling.percent_to_sigma, level)
    if y == 0:
        run.forget_differences()  # what was computed before a pause is old
    asked = asked._replace(against=_place_of(run, asked.conds))
    works = y > 0 and (bool(run.against) or (plan.disturbs and not run.failed))
    chunks = tuple(_guided_lists(plan, run, asked)) if works else ()
    visits, recorded = {plan.depth: Visit(plan.depth)}, bool(options.get(RECORDINGS))
    forward = Forward(chunks, len(asked.x), _grid_of(asked.x), asked.sigma, run, recorded, y=y, visits=visits)
    return forward, _past_caches(forward, asked)


def _guided_lists(plan: Plan, run: Run, asked: Asked) -> Iterator[Chunk]:
    """A chunk for each list of conditions that is guided, with the difference that stands in for its branch, if any.

    Where cfg asks for the negative prompt, it costs nothing to have the difference anew.
    """
    both = plan.settings.guide_unconditional and not run.against
    for i, listed in enumerate(asked.conds):
        if listed and (i in run.conditional or both):
            key = _key(run, listed, asked)
            held = None if key is None or asked.against is not None else run.held.get(key)
            kept = held.difference if held is not None and _stands_in(plan, run, held) else None
            if asked.against is None and (key is None or (held is None and _has_moved(plan, run, key))):
                run.untold += plan.renews
            yield Chunk(slice(0, len(asked.x)), key, i, difference=kept)


def _key(run: Run, listed: list[dict], asked: Asked) -> tuple | None:
    """What a difference belongs to: conditions, and the part of the latent that it is for; None if nobody says.

    Of the conditions, on both sides, those that hold now: of another prompt's the difference would push towards it.
    """
    windowed = "context_window" in asked.transformer_options
    if run.latent is not None and asked.x.shape != run.latent.shape and not windowed:  # a tile
        return None
    return (_holding(listed, asked.sigma), _holding(run.against, asked.sigma)), asked.part


def _holding(listed: list[dict], sigma: Tensor) -> tuple[Hashable, ...]:
    """The identities of those conditions that hold at this noise level."""
    return tuple(cond.get("uuid") for cond in listed if _holds(cond, sigma))


def _holds(cond: dict, sigma: Tensor) -> bool:
    start, end = cond.get("timestep_start"), cond.get("timestep_end")
    return not ((start is not None and sigma[0] > start) or (end is not None and sigma[0] < end))


def _has_moved(plan: Plan, run: Run, key: tuple) -> bool:
    """Whether this is a context window that steps before had elsewhere, so that none has kept a difference for it."""
    every = run.renewed_every(plan.settings)
    return any(other[0] == key[0] and 0 < _age(run, held) < every for other, held in run.held.items())


def _stands_in(plan: Plan, run: Run, held: KeptNoise) -> bool:
    """Whether a difference stands in for one that would be computed now.

    What other nodes ask for within one evaluation of the sampler (a skipped layer, say) shares that one's. A step that
    computes it does so in each of its evaluations.
    """
    return held.evaluation == run.evaluation or 0 < _age(run, held) < run.renewed_every(plan.settings)


def _age(run: Run, held: KeptNoise) -> float:
    """How many of the sampler's steps ago it was computed; endless where noise levels are not asked for."""
    return math.inf if held.sigma is None else run.steps_between(held.sigma)


def _grid_of(x: Tensor) -> tuple[int, int]:
    """The places of a latent, (height, width), a video's frames below one another; one place where they are packed."""
    return (1, 1) if _is_packed(x) else (x[0, 0].numel() // x.shape[-1], x.shape[-1])


# --- the branch ---


def _list_of(chunk: Chunk) -> int:
    """Which of the lists of conditions it is."""
    assert chunk.index is not None
    return chunk.index


def _missing(forward: Forward) -> list[int]:
    """The lists whose branch is computed here."""
    return [_list_of(chunk) for chunk in forward.chunks if chunk.difference is None]


def _past_caches(forward: Forward, asked: Asked) -> Asked:
    """The same without what EasyCache knows, where a branch is computed beside what the sampler wants.

    It would take one of the two from an earlier step, and their difference would be that of the steps. Raises
    ValueError beside a pack's cache, which can't be told.
    """
    if asked.against is not None or not _missing(forward):
        return asked
    if "ar_state" in asked.transformer_options:
        raise ValueError(
            "with this sampler the model keeps the frames that it made before, and would keep a branch's among them, "
            "so that none can be worked out"
        )
    if name := cache_on(asked.options):
        raise ValueError(
            f"{name} would give the branch what it keeps of another step or of the prompt. Switch it off, take "
            "ComfyUI's EasyCache, or set cfg above 1.0, where the sampler has the negative prompt worked out itself"
        )
    cache = asked.transformer_options.get("easycache")
    return asked if cache is None else asked.told(easycache=cache.clone())


def _with_negative(run: Run, forward: Forward, asked: Asked) -> tuple[list[Tensor], dict[int, Tensor]] | None:
    """The host's predictions, and by list those of the negative prompt, worked out together; None where not wanted."""
    missing = _missing(forward)
    if not missing or not run.against:
        return None
    wanted, place = asked.conds, asked.against
    if place is None:
        wanted, place = _beside(asked.conds, _negative_here(run, asked))
    found = asked.predictions(wanted)
    # In the place of a list that nobody wants the host gives zeros.
    plain = [one if listed else torch.zeros_like(one) for one, listed in zip(found, asked.conds, strict=False)]
    return plain, dict.fromkeys(missing, found[place])


def _disturbed(plan: Plan, run: Run, forward: Forward, asked: Asked) -> dict[int, Tensor]:
    """The host's predictions with a disturbed attention, by list."""
    own = asked.told(**{NEGATIVE_MARK: True, plan.disturbed_key: True})
    found = {i: own.predictions([asked.conds[i]])[0] for i in _missing(forward)}
    return {} if run.failed else found  # where the attention was not disturbed, as was said there


def _beside(conds: list, against: list[dict]) -> tuple[list, int]:
    """The lists with that of the negative prompt among them, and its place: where none is wanted.

    At cfg 1 that is where the host has it with cfg above 1, so that other patches see what they know.
    """
    place = next((i for i, listed in enumerate(conds) if not listed), len(conds))
    return [*conds[:place], against, *conds[place + 1 :]], place


def _place_of(run: Run, conds: list) -> int | None:
    """Which list is the negative prompt's; None where it is not among them."""
    if not run.against:
        return None
    # For an area of another list's the host adds one to each, under that one's identity, behind the list's own.
    return next((i for i, listed in enumerate(conds) if listed and listed[0].get("uuid") in run.negatives), None)


def _negative_here(run: Run, asked: Asked) -> list[dict]:
    """The negative prompt's conditions, cut to the window of a video that is worked out."""
    window = asked.transformer_options.get("context_window")
    if window is None or run.latent is None:
        return run.against
    if run.latent.ndim < 4:
        raise ValueError("picture and sound in one latent can't be cut to context windows here, unless cfg is above 1")
    frames = run.latent.narrow(window.dim, 0, window.total_frames)  # without those that guide, which stand behind
    return asked.options["context_handler"].get_resized_cond(run.against, frames, window)


# --- the merge ---


def _guide(
    plan: Plan, run: Run, forward: Forward, asked: Asked, plain: list[Tensor], negative: dict[int, Tensor]
) -> list[Tensor] | None:
    """The predictions, those of the guided lists pushed; None where guidance has failed meanwhile."""
    if run.complained:
        return None
    pushes = {}
    for chunk in forward.chunks:
        index = _list_of(chunk)
        if index in negative:
            # Where it is not finite nothing is pushed, at the steps to come either.
            chunk.renewed = ((plain[index] - negative[index]) / asked.level).nan_to_num(0.0, 0.0, 0.0)
        difference = chunk.difference if chunk.renewed is None else chunk.renewed
        if difference is not None:
            pushes[index] = _push(plan, forward, chunk, asked, plain[index], difference)
    guided = _moved(run, asked, plain, pushes)
    _keep(plan, run, forward)
    take_down(plan, run, forward, asked.transformer_options)
    return guided


def _push(plan: Plan, forward: Forward, chunk: Chunk, asked: Asked, plain: Tensor, difference: Tensor) -> Tensor:
    """What is added to x₀: its noise σv is pushed away from the branch's. difference: v⁻ − v⁺, (batch, channels, …)."""
    noise = _tokens(asked.x - plain)
    guided = noise.clone()
    note = noting(forward, forward.visits[plan.depth], chunk, plan.settings.tau)
    minus = noise + _tokens(asked.level * difference)
    guide_in_place(guided, minus, plan.settings.scale * forward.y, plan.settings, note)
    # The change alone, so that a token that keeps Z⁺ keeps its value to the bit.
    return _latent(noise - guided, plain)


def _tokens(v: Tensor) -> Tensor:
    """(batch, channels, …) as (batch, tokens, 1, channels): a token is a place of the latent.

    Where several latents are packed in one row, (batch, 1, numbers), places are not known: all is one token.
    """
    return v.flatten(1)[:, None, None] if _is_packed(v) else v.flatten(2).transpose(1, 2).unsqueeze(2)


def _latent(tokens: Tensor, like: Tensor) -> Tensor:
    """The other way round."""
    return (tokens if _is_packed(like) else tokens.squeeze(2).transpose(1, 2)).reshape(like.shape)


def _is_packed(x: Tensor) -> bool:
    """Whether a row holds several latents, such as picture and sound, of which the host makes one axis."""
    return x.ndim == 3 and x.shape[1] == 1


def _moved(run: Run, asked: Asked, plain: list[Tensor], pushes: dict[int, Tensor]) -> list[Tensor]:
    """The predictions with their pushes, by list.

    Away from a negative prompt what cfg subtracts moves as the prompt's does, also where another node has the host work
    it out after the prompt: cfg above 1 is not to enlarge the push.
    """
    if run.against and pushes:
        run.pushes[asked.part] = next(iter(pushes.values()))
        if asked.part in run.unmoved:
            say_enlarged(run)
    if asked.part in run.pushes:
        wanted = [i for i, listed in enumerate(asked.conds) if listed]
        pushes = {**dict.fromkeys(wanted, run.pushes[asked.part]), **pushes}
    elif asked.against is not None:
        run.unmoved.add(asked.part)
    return [one + pushes[i] if i in pushes else one for i, one in enumerate(plain)]


def _keep(plan: Plan, run: Run, forward: Forward) -> None:
    """Keep what was computed here for the steps to come, and nothing that is too old for them."""
    new: dict[tuple, KeptNoise] = {
        chunk.condition: KeptNoise(chunk.renewed, run.evaluation, run.sigma)
        for chunk in forward.chunks
        if chunk.renewed is not None and chunk.condition is not None
    }
    if new:
        every, now = run.renewed_every(plan.settings), run.evaluation
        young = {key: h for key, h in run.held.items() if h.evaluation == now or _age(run, h) < every}
        run.held = {**young, **new}

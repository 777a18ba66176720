"""Where the host calls us around its own work: the sampling, each evaluation of it, each forward of the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .attention import OVERRIDE, attention_of_all
from .block import replace_blocks
from .branch import begin_streams
from .fallback import attempt, leave_alone, words_of
from .forward import Chunk, Forward, Visit
from .negative import add_conditions, hand_out_text, hear_conditions, identities, prompts_in, through_post_input
from .plan import RECORDINGS, Plan, replacements
from .prediction import Asked, guided_predictions
from .renewal import hand_out_differences, keep_differences
from .report import ending, report, say_uncompiled, take_down
from .run import Run
from .step import noise_level, strength_of

log = logging.getLogger("nag_pag_flux")


def outer_sample(plan: Plan) -> Callable:
    """The OUTER_SAMPLE wrapper."""

    def wrapper(executor, *args, **kwargs):
        guider = executor.class_obj
        run = attempt(
            lambda: _begin_sampling(plan, guider), lambda error: _leave_sampling_alone(plan, error, anew=True)
        )
        if run is None:
            return executor(*args, **kwargs)
        try:
            samples = executor(*args, **kwargs)
        except BaseException as error:
            _end_sampling(plan, run, error)
            raise
        _end_sampling(plan, run, None)
        return samples

    return wrapper


def _begin_sampling(plan: Plan, guider: Any) -> Run:
    plan.start_sampling()
    if plan.settings.carries_negative:
        add_conditions(plan, guider.conds)
    conds = getattr(guider, "conds", {})
    run = Run(_prompts(conds), identities(plan, conds), _of_areas(conds))
    run.unguarded = _is_unguarded(guider.model_options)
    # The guider's options are this run's own copy, dropped by the host at the end: the run goes with them.
    guider.model_options["transformer_options"][plan.run_key] = run
    return run


def _is_unguarded(model_options: dict) -> bool:
    """Whether the model may be compiled without guards on the transformer options, in which guidance travels.

    The host's node hands torch.compile a filter among its options; torch takes it out of them, so that options of any
    kind may have held one.
    """
    compiling = model_options.get("torch_compile_kwargs") or {}
    return compiling.get("options") is not None


def _compiling(run: Run) -> AbstractContextManager:
    """Within it torch.compile is left out where it is unguarded: what we put into the model would be lost."""
    if not run.unguarded:
        return nullcontext()
    say_uncompiled(run)
    return torch.compiler.set_stance("force_eager")


def _end_sampling(plan: Plan, run: Run, error: BaseException | None) -> None:
    """Free and report. error: that which ended the sampling, None where it went well."""

    def end() -> None:
        run.free()
        run.ended = "" if error is None else ending(error)
        run.complained |= bool(plan.said)
        report(plan, run)

    attempt(end, lambda error: log.warning("NAG-PAG: what guidance did can't be said: %s", words_of(error)))


def _prompts(conds: dict[str, list[dict]]) -> set[Hashable]:
    """Which of a guider's conditions are the prompt's; some guiders mark a second negative one inside."""
    return {cond["uuid"] for cond in prompts_in(conds) if "uuid" in cond and cond.get("prompt_type") != "negative"}


def _of_areas(conds: dict[str, list[dict]]) -> set[Hashable]:
    """Which of a guider's conditions hold for an area of the picture; of a mask the host makes one later."""
    listed = [cond for conditions in conds.values() for cond in conditions or []]
    return {cond["uuid"] for cond in listed if "area" in cond or cond.get("set_area_to_bounds")}


def predict_noise(plan: Plan) -> Callable:
    """The PREDICT_NOISE wrapper: the sampler begins another evaluation."""

    def wrapper(executor, x, timestep, model_options={}, seed=None):
        run = _run_in(plan, model_options)
        if run is not None:
            hear = lambda: _hear_evaluation(plan, run, executor.class_obj, x)  # noqa: E731
            attempt(hear, lambda error: leave_alone(run, error))
        return executor(x, timestep, model_options, seed)

    return wrapper


def _hear_evaluation(plan: Plan, run: Run, guider: Any, x: Tensor) -> None:
    run.begin_evaluation()
    run.latent = x
    if plan.settings.carries_negative:
        hear_conditions(plan, run, guider.conds)


def calc_cond_batch(plan: Plan) -> Callable:
    """The CALC_COND_BATCH wrapper: only here the host tells which of its numbered lists holds the prompt's conditions.

    The first list does in plain CFG, but not with every guider, nor where a pack has other conditions worked out.
    """
    at_prediction = plan.at_prediction

    def wrapper(executor, model, conds, x_in, timestep, model_options):
        run = _run_in(plan, model_options)
        if run is None:
            return executor(model, conds, x_in, timestep, model_options)
        attempt(lambda: _hear_lists(run, conds, x_in), lambda error: leave_alone(run, error))
        if at_prediction:
            return guided_predictions(plan, run, Asked(executor, model, conds, x_in, timestep, model_options))
        return executor(model, conds, x_in, timestep, model_options)

    return wrapper


def _hear_lists(run: Run, conds: list, x: Tensor) -> None:
    # What the host adds to a list for its areas, of another list's conditions, comes behind the list's own.
    firsts = {i: listed[0].get("uuid") for i, listed in enumerate(conds) if listed}
    run.conditional = {i for i, uuid in firsts.items() if uuid in run.prompts} if run.prompts else {0}
    run.rows = x.shape[0]


def _run_in(plan: Plan, model_options: dict) -> Run | None:
    """The sampling that these options are of, None where there is none; where that fails, it goes on unguided."""
    return attempt(
        lambda: model_options.get("transformer_options", {}).get(plan.run_key),
        lambda error: _leave_sampling_alone(plan, error),
    )


def apply_model(plan: Plan) -> Callable:
    """The APPLY_MODEL wrapper."""

    def wrapper(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        given = {**kwargs, "c_crossattn": c_crossattn, "control": control, "t": t}
        begun = attempt(
            lambda: _begin_in_run(plan, executor.class_obj, x, given, transformer_options),
            lambda error: _leave_sampling_alone(plan, error),
        )
        if begun is None:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        run, forward, options, compiling = begun
        try:
            with compiling:
                out = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
            attempt(lambda: _end(plan, run, forward, transformer_options), lambda error: leave_alone(run, error))
        finally:
            attempt(lambda: _free(forward), lambda error: leave_alone(run, error))
        return out

    return wrapper


def _begin_in_run(
    plan: Plan, model: Any, x: Tensor, given: dict, transformer_options: dict
) -> tuple[Run, Forward, dict, AbstractContextManager] | None:
    # Without a run it is a forward outside of any sampling.
    run = transformer_options.get(plan.run_key) or Run()
    run.begun += 1
    if run.complained:
        return None
    begin = _begin_at_prediction if plan.at_prediction else _begin_in_blocks
    forward = attempt(
        lambda: begin(plan, run, model, x, given, transformer_options), lambda error: leave_alone(run, error)
    )
    if forward is None:
        return None
    if not forward.visits:  # nothing of ours enters the model
        return run, forward, transformer_options, nullcontext()
    options = {**transformer_options, plan.forward_key: forward}
    _hook_blocks(plan, run, forward, model, x, options)
    # The last comes last: torch.compile is left out from there on.
    return run, forward, options, _compiling(run)


def _hook_blocks(plan: Plan, run: Run, forward: Forward, model: Any, x: Tensor, options: dict) -> None:
    """Put into a forward's own options what is not on the model already."""
    flux, give_up = model.diffusion_model, lambda error: leave_alone(run, error)
    if not plan.family.slots:
        options.pop("block_index", None)
        options[OVERRIDE] = attention_of_all(plan, forward, flux, options, give_up)
    elif plan.at_prediction:
        replace_blocks(plan, options)
    others, ids = options.get("patches", {}).get("post_input"), plan.family.ids
    if others and run.negative is not None and ids is not None:
        embed = getattr(flux, plan.family.embedder)
        through = through_post_input(forward, lambda txt: ids(flux, txt, x), embed, others, give_up)
        options["patches"] = {**options["patches"], "post_input": [through, *others]}


def _free(forward: Forward) -> None:
    # The host frees memory while it still holds the error, and with it the frames that hold these.
    for chunk in forward.chunks:
        chunk.free()


def _leave_sampling_alone(plan: Plan, error: Exception, anew: bool = False) -> None:
    """Where not even the run is known. anew: a sampling begins, and nothing was said of it before."""
    if anew or not plan.said:
        log.warning("NAG-PAG: sampling goes on without guidance: %s", words_of(error))
    plan.said.add(words_of(error))
    for call in plan.calls.values():
        call.failed = True


def _begin_in_blocks(plan: Plan, run: Run, model: Any, x: Tensor, given: dict, transformer_options: dict) -> Forward:
    """given: the host's other arguments of this forward, by name."""
    sigmas = transformer_options.get("sigmas")
    sigma = noise_level(plan, sigmas)
    y = strength_of(plan.settings, model.model_sampling.percent_to_sigma, sigma)
    family = plan.family
    acts = y > 0 and (run.negative is not None or plan.disturbs) and family.runs(transformer_options)
    chunks = tuple(_chunks(plan, run, transformer_options, x)) if acts else ()
    run.schedule = transformer_options.get("sample_sigmas")
    run.at(sigma)
    if plan.renews and y == 0:
        run.forget_differences()  # what was computed before a pause is old
    beside = plan.merge is not None or run.negative is not None
    if plan.renews and beside and chunks:
        whole = run.latent is not None and x.shape[2:] == run.latent.shape[2:]
        hand_out_differences(plan, run, chunks, whole, transformer_options)
    if beside:
        changing = given.get("control") is not None or "double_block" in transformer_options.get("patches", {})
        whole = plan.family.mask is None and given.get("attention_mask") is not None
        begin_streams(plan, run, chunks, x.shape[0], transformer_options, changing, whole)
    if run.negative is not None:
        hand_out_text(plan, run, chunks, model, x, given)
    # A fill on the device: nothing is copied there, and nothing waits.
    strength = torch.full((), y, dtype=torch.float32, device=x.device) if plan.settings.varies else y
    recorded = bool(transformer_options.get(RECORDINGS))
    start = 0 if run.negative is not None else next(iter(plan.chosen), None)
    grid, joint = _places(plan, model, x, given)
    meets = plan.merge is None and run.negative is not None
    return Forward(
        chunks, x.shape[0], grid, sigmas, run, recorded, *joint, start, meets, y, strength, visits=_visits(plan, run)
    )


def _begin_at_prediction(
    plan: Plan, run: Run, model: Any, x: Tensor, given: dict, transformer_options: dict
) -> Forward:
    """Where the prediction is guided: the attention is disturbed in the branch's own evaluations, of all their rows.

    Elsewhere nothing is asked of the model, which may be of any family.
    """
    sigmas = transformer_options.get("sigmas")
    if plan.disturbed_key not in transformer_options:
        return Forward((), x.shape[0], (1, 1), sigmas, run, False)
    grid, joint = _places(plan, model, x, given)
    chunk = Chunk(slice(0, x.shape[0]), None)
    return Forward((chunk,), x.shape[0], grid, sigmas, run, False, *joint, visits=_visits(plan, run))


def _visits(plan: Plan, run: Run) -> dict[int, Visit]:
    return {position: Visit(position, position in run.failed) for position in plan.positions}


def _places(plan: Plan, model: Any, x: Tensor, given: dict) -> tuple[tuple[int, int], tuple[bool, bool, int, int]]:
    """A forward's grid, and where picture and text stand: its joint, picture_first, ahead and prompt_tokens."""
    family, text = plan.family, given.get("c_crossattn")
    grid, first = _grid(plan, x, given)
    ahead = family.ahead(model.diffusion_model, given) + first
    return grid, (family.joint, family.picture_first, ahead, 0 if text is None else text.shape[1])


def _grid(plan: Plan, x: Tensor, given: dict) -> tuple[tuple[int, int], int]:
    """The tokens being made, (height, width), and how many of given frames stand before them."""
    family = plan.family
    shape = family.shape(x, given)
    (height, width), ends = plan.grid(shape), (family.given_frames(given), family.last_frames(given))
    first, last = (plan.grid((*shape[:2], frames, *shape[-2:]))[0] for frames in ends)
    made = height - first - last - family.keyframes(given) // width
    if made < 1:
        raise ValueError("all frames are given, so that there is none to guide")
    return (made, width), first * width


def _chunks(plan: Plan, run: Run, transformer_options: dict, x: Tensor) -> Iterator[Chunk]:
    """The chunks to be guided; without the host's word every row counts as conditional."""
    kinds = transformer_options.get("cond_or_uncond") or [0]
    uuids = transformer_options.get("uuids") or []
    if len(uuids) != len(kinds):  # another patch made the batch, and speaks of kinds only
        uuids = [None] * len(kinds)
    # Against a negative prompt only the prompt's own rows are guided: its own would have nothing to be pushed from.
    both = plan.settings.guide_unconditional and run.negative is None
    guided = [kind in run.conditional or both for kind in kinds]
    size, rest = divmod(x.shape[0], len(kinds))
    if rest or size != (run.rows or size):  # another patch runs the batch in parts of its own
        if all(guided):
            yield Chunk(slice(0, x.shape[0]), None)
        elif any(guided):
            run.unclear += 1
        return
    for i, (kind, uuid) in enumerate(zip(kinds, uuids, strict=True)):
        if guided[i]:
            # One prompt may serve as both kinds, so the kind is part of what tells conditions apart.
            condition = (uuid, kind, size, tuple(x.shape[1:])) if uuid else None
            yield Chunk(slice(i * size, (i + 1) * size), condition, i)


def _end(plan: Plan, run: Run, forward: Forward, transformer_options: dict) -> None:
    run.forwards += 1
    run.reached |= forward.reached
    if not plan.at_prediction:
        take_down(plan, run, forward, transformer_options)
    keep_differences(plan, run, forward.chunks)
    for copies in run.copies.values():
        copies.end()
        copies.forget()
    slots = replacements(transformer_options)
    run.replaced |= {p for p, ours in plan.replacements.items() if slots.get(plan.slot(p)) is not ours}

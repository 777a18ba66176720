"""A negative prompt at reach attention (NAG, arXiv 2505.21179), against ComfyUI's own NAGuidance.

That one has the host run both prompts at each step. Ours runs the negative one beside the blocks, at some steps, and
holds what the two attentions differ by in between.
"""

import gc
import logging
import weakref

import other_families
import pytest
import torch
from comfy_extras.nodes_nag import NAGuidance
from comparing import POSITIVE
from nag_pag_flux.lab.toy import small_families
from nag_pag_flux.nagpag.diagnostics.inspect import inspect_model
from nag_pag_flux.nagpag.guidance import guide
from nag_pag_flux.nagpag.inputs.presets import PRESETS
from nag_pag_flux.nagpag.patch import forward
from other_families import HERE
from sampling import guided, prompt, sample

from nodes import common_ksampler

ALL = "all"
SETTINGS = {"scale": 4.0, "tau": 1.5, "alpha": 0.5, "blocks": ALL, "negative_prompt": "sampler's", "renew_every": 1}
NEGATIVE = prompt(2)


class Held:
    """Both prompts in one batch, as NAGuidance has them, guided in these blocks by a difference of every so many steps.

    It is read from the host's own attentions; written with none of our code but the published formula, which has
    oracles of its own.
    """

    def __init__(self, every, first=0, last=99, blocks=None):
        self.every, self.first, self.last, self.blocks, self.kept = every, first, last, blocks, {}

    def on(self, model):
        patched = model.clone()
        patched.set_model_attn1_output_patch(self.patch)
        patched.disable_model_cfg1_optimization()
        return patched

    def patch(self, out, extra):
        place = extra["block_type"], extra["block_index"]
        sigmas = extra["sample_sigmas"]
        step = int((sigmas - extra["sigmas"][0]).abs().argmin())
        if not self.first <= step <= self.last or (self.blocks and place not in self.blocks):
            return out
        rows = out.shape[0] // 2
        prompts = {kind: slice(i * rows, (i + 1) * rows) for i, kind in enumerate(extra["cond_or_uncond"])}
        picture = slice(*extra["img_slice"])
        plus = out[prompts[0], picture]
        if (step - self.first) % self.every == 0:
            self.kept[place] = (out[prompts[1], picture] - plus).clone()
        z, _ = guide(plus.unsqueeze(2), (plus + self.kept[place]).unsqueeze(2), 4.0, 1.5, 0.5)
        for of in prompts.values():
            out[of, picture] = z.squeeze(2)
        return out


def check(model, oracle, inputs, tolerance=1e-4, **sampling):
    """The node draws what the oracle draws."""
    sampling = {"negative": NEGATIVE, **sampling}
    plain, ours = (sample(each, POSITIVE, **sampling) for each in (model, guided(model, **{**SETTINGS, **inputs})))
    expected = sample(oracle, POSITIVE, **sampling)
    effect = (expected - plain).abs().max()
    assert effect > 1e-3
    assert (ours - expected).abs().max() <= tolerance * effect + 1e-6


@pytest.mark.parametrize("size", [(1, 8, 12), (2, 6, 10)])
def test_at_every_step_it_is_nag(flux, size):
    check(flux, NAGuidance.execute(flux, 5.0, 0.5, 1.5).args[0], {}, size=size)


@pytest.mark.parametrize("every", [2, 3])
def test_between_renewals_the_blocks_differences_are_held(flux, every):
    check(flux, Held(every).on(flux), {"renew_every": every}, steps=5)


def test_the_part_of_the_sampling_and_blocks_that_are_asked_for(flux):
    blocks = {("double", 1), ("single", 0), ("single", 1)}
    oracle = Held(2, first=1, last=3, blocks=blocks).on(flux)
    # On the simple schedule of 5 steps they begin at 0, 20, 40, 60 and 80 % of the sampling.
    part = {"start_percent": 0.15, "end_percent": 0.65, "blocks": "1, s0, s1", "renew_every": 2}
    check(flux, oracle, part, steps=5)


def test_two_nodes_in_turn_are_each_at_work_in_its_part_of_the_sampling(flux):
    """As docs/which-setting.md has them; against two samplings, the second of which goes on where the first ended."""
    early = PRESETS["NAG with a negative prompt"]
    late = {"reach": "prediction", "negative_prompt": "sampler's", "start_percent": 0.45, "renew_every": 3}
    first, second = guided(flux, **early), guided(flux, **late)
    in_turn, plain = (sample(model, POSITIVE, negative=NEGATIVE, steps=10) for model in (guided(first, **late), flux))
    half = part_of_sampling(first, torch.zeros_like(plain), last_step=5)
    in_parts = part_of_sampling(second, half, start_step=5, disable_noise=True, force_full_denoise=True)
    effects = [(in_turn - sample(one, POSITIVE, negative=NEGATIVE, steps=10)).abs().max() for one in (first, second)]
    assert min(effects) > 1e-3
    torch.testing.assert_close(in_turn, in_parts, rtol=1e-4, atol=1e-4)


def part_of_sampling(model, latent, **part):
    """What KSamplerAdvanced does, with the seed and the steps of the test above."""
    given = {"samples": latent}
    return common_ksampler(model, 7, 10, 1.0, "euler", "simple", POSITIVE, NEGATIVE, given, **part)[0]["samples"]


def test_renewed_at_each_step_prompts_may_have_any_length(flux):
    """The host can't run these in one batch: there its own node does nothing, and ours has no such bounds."""
    longer = prompt(2, tokens=14)
    plain, ours = sample(flux, POSITIVE, negative=longer), sample(guided(flux, **SETTINGS), POSITIVE, negative=longer)
    theirs = sample(NAGuidance.execute(flux, 5.0, 0.5, 1.5).args[0], POSITIVE, negative=longer)
    assert (theirs - plain).abs().max() < 1e-4 and (ours - plain).abs().max() > 1e-3


def test_above_cfg_1_the_prompts_rows_alone_are_guided(flux):
    with_cfg = sample(guided(flux, **SETTINGS), POSITIVE, negative=NEGATIVE, cfg=2.0)
    assert (with_cfg - sample(flux, POSITIVE, negative=NEGATIVE, cfg=2.0)).abs().max() > 1e-3


def test_scale_0_and_a_negative_that_is_the_prompt_change_nothing(flux):
    plain = sample(flux, POSITIVE, negative=POSITIVE)
    assert torch.equal(sample(guided(flux, **{**SETTINGS, "scale": 0.0}), POSITIVE, negative=POSITIVE), plain)
    same = sample(guided(flux, **SETTINGS), POSITIVE, negative=POSITIVE)
    assert (same - plain).abs().max() < 1e-5


def test_without_a_negative_prompt_the_attention_is_disturbed(flux, caplog):
    zeros = [[torch.zeros_like(context), extras] for context, extras in NEGATIVE]
    inputs = {**SETTINGS, "blocks": "1-3"}
    ours = sample(guided(flux, **inputs), POSITIVE, negative=zeros)
    disturbed = sample(guided(flux, **{**inputs, "negative_prompt": "off"}), POSITIVE, negative=zeros)
    assert torch.equal(ours, disturbed)
    assert "guidance does without it" in caplog.text


def test_it_says_what_it_did(flux, caplog):
    with caplog.at_level(logging.INFO, logger="nag_pag_flux"):
        sample(guided(flux, **{**SETTINGS, "renew_every": 2}), POSITIVE, negative=NEGATIVE, steps=4)
    (line,) = [record.getMessage() for record in caplog.records if "guided by" in record.getMessage()]
    assert "by a negative prompt and double blocks 0, 1, 2, 3 and single blocks 0, 1" in line
    assert "merged in the attention of each and computed at 2 of them" in line


AT_WORK: list[int] = []  # of the module, as what a patch keeps elsewhere the branch has a copy of


def fails_for_the_branch(args, extra):
    """A block patch whose call for the branch, which is within the picture's own, fails."""
    if AT_WORK:
        raise RuntimeError("broken on purpose")
    AT_WORK.append(1)
    try:
        return extra["original_block"](args)
    finally:
        AT_WORK.pop()


def test_what_fails_in_one_block_ends_the_branch_with_one_warning(flux, caplog):
    """No half branch goes on: what it would meet in the next block is not its own."""

    broken = flux.clone()
    broken.set_model_patch_replace(fails_for_the_branch, "dit", "double_block", 0)
    plain = sample(flux, POSITIVE, negative=NEGATIVE)
    ours = sample(guided(broken, **SETTINGS), POSITIVE, negative=NEGATIVE)
    assert torch.equal(ours, plain)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("broken on purpose" in one for one in said) == 1


def test_what_is_held_goes_with_the_sampling(flux, monkeypatch):
    """Streams and differences, without a search for circles of references."""
    made, real = [], forward.Stream.__init__

    def heard(stream, *args, **kwargs):
        real(stream, *args, **kwargs)
        made.append(weakref.ref(stream))

    monkeypatch.setattr(forward.Stream, "__init__", heard)
    ours = guided(flux, **{**SETTINGS, "renew_every": 3})
    gc.disable()
    try:
        sample(ours, POSITIVE, negative=NEGATIVE, steps=4)
        assert len(made) == 2 and not any(stream() for stream in made)
    finally:
        gc.enable()


def test_another_patchs_attention_is_the_branchs_own_copy_there(flux):
    """Called for the picture and for the branch in turn, what it keeps of one must not be met by the other."""

    class Keeps:
        def __init__(self):
            self.lengths = set()

        def __call__(self, func, q, k, v, heads, *args, **kwargs):
            self.lengths.add(q.shape[2])
            return func(q, k, v, heads, *args, **kwargs)

    keeps = Keeps()
    patched = flux.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = keeps
    sample(guided(patched, **SETTINGS), POSITIVE, negative=prompt(2, tokens=14))
    assert len(keeps.lengths) == 1


def test_a_block_that_is_left_out_at_a_renewal_costs_that_renewal_alone(flux, caplog):
    def skipped_once(args, extra):
        step = int((extra_sigmas(args) - args["transformer_options"]["sigmas"][0]).abs().argmin())
        return {"img": args["img"], "txt": args["txt"]} if step == 0 else ours_in_2(args, extra)

    def extra_sigmas(args):
        return args["transformer_options"]["sample_sigmas"]

    ours = guided(flux, **{**SETTINGS, "renew_every": 2})
    table = ours.model_options["transformer_options"]["patches_replace"]["dit"]
    ours_in_2 = table["double_block", 2]
    ours.set_model_patch_replace(skipped_once, "dit", "double_block", 2)
    with caplog.at_level(logging.INFO, logger="nag_pag_flux"):
        sample(ours, POSITIVE, negative=NEGATIVE, steps=4)
    assert "KeyError" not in caplog.text and "guided by a negative prompt" in caplog.text
    assert "computed at 3 of them" in caplog.text  # the first has nothing that is whole to hand on


def test_a_first_block_that_another_took_is_named(flux, caplog):
    """The branch begins there, whichever blocks are chosen."""
    ours = guided(flux, **{**SETTINGS, "blocks": "2"})
    ours.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 0)
    sample(ours, POSITIVE, negative=NEGATIVE)
    assert "double block 0 not guided: a node after NAG-PAG Guidance replaced it" in caplog.text


def test_without_a_negative_prompt_each_block_fails_alone(flux, caplog):
    """It is the disturbed attention then, whatever was asked for."""
    zeros = [[torch.zeros_like(context), extras] for context, extras in NEGATIVE]

    def unheard(args, extra):
        return extra["original_block"]({**args, "transformer_options": {}})

    broken = flux.clone()
    broken.set_model_patch_replace(unheard, "dit", "double_block", 1)
    with caplog.at_level(logging.INFO, logger="nag_pag_flux"):
        sample(guided(broken, **{**SETTINGS, "blocks": "1-2"}), POSITIVE, negative=zeros)
    assert "guided double blocks 2" in caplog.text or "guided double block 2" in caplog.text


# --- other families ---

# Their text is not in the attention that is guided, or no branch can run beside their blocks.
NO_MEETING = {
    *("Wan", "LTXV", "LTX-2", "Z-Image and Lumina 2", "Kandinsky 5", "Cosmos Predict 2 and Anima"),
    *("Krea 2", "OmniGen 2", "MiniMax H3"),
}
MEETING = [case for case in HERE if case.family not in NO_MEETING]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")

    def loaded(case):
        path = folder / f"{case.small}.safetensors"
        small_families.make_small(case.small, path)
        return small_families.load_small(case.small, path)

    return loaded


@pytest.mark.parametrize("case", MEETING, ids=str)
def test_the_branch_passes_the_blocks_as_the_picture_does(load, case):
    """With the prompt itself as negative, and in a batch of two: a place, mask or modulation that is not the prompt's
    would show. With another one it shows, too."""
    model, own, other = load(case), other_families.prompt(case, 1), other_families.prompt(case, 2)
    every = {**SETTINGS, "blocks": "0-3" + (f", s0-{case.singles - 1}" if case.singles else "")}
    rows = case.at_most(2, {})
    plain = other_families.sample(case, model, own, own, steps=1, batch=rows)
    same, apart = (
        other_families.sample(case, guided(model, **every), own, negative, steps=1, batch=rows)
        for negative in (own, other)
    )
    effect = (apart - plain).abs().max()
    assert effect > 1e-3 and (same - plain).abs().max() < 1e-3 * effect + 1e-5


@pytest.mark.parametrize("case", [case for case in HERE if case.family in NO_MEETING and not case.another], ids=str)
def test_where_it_can_not_be_it_is_refused_with_what_can(load, case):
    with pytest.raises(ValueError, match="can't be pushed away from that of a negative prompt.*Take reach prediction"):
        guided(load(case), **{**SETTINGS, "blocks": "1"})


def test_inspect_says_what_it_costs_and_where_it_can_not_be(flux):
    assert "attention, with a negative prompt: 5 of 6 (83%;" in inspect_model(flux, "1, s0")


@pytest.mark.parametrize("case", [case for case in HERE if case.small in ("Wan 2.1", "Z-Image")], ids=str)
def test_inspect_promises_nothing_that_is_refused(load, case):
    text = inspect_model(load(case), "1")
    assert "attention, with a negative prompt" not in text
    assert "negative_prompt at the prediction" in text or "at reach attention without one" in text

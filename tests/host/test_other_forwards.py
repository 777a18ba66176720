"""Other packs' forwards, in each form in which they call a block: guidance acts, or one line says why it does not."""

import logging

import pytest
import torch
from oracle import guided_host
from other_forwards import Form, OtherForward
from sampling import guided, picture_tokens, prompt, sample

POSITIVE, NEGATIVE = prompt(1), prompt(2, tokens=14)
LOGGER = "nag_pag_flux"
CASES = {
    "attention": {"blocks": "1, 2, s0"},
    "double blocks": {"blocks": "1, 2", "reach": "double blocks", "renew_every": 1},
    "output": {"blocks": "1, s0", "reach": "output", "renew_every": 2},
    "negative prompt": {"blocks": "1, 2", "reach": "output", "renew_every": 1, "negative_prompt": "sampler's"},
}
ACTING = {
    "as the host": Form(),
    "in both dicts": Form(second=True),
    "in the second dict": Form(first=False, second=True),
}
DEAF = {
    "in the first dict, not handed on": Form(handed_on=False),
    "in the second dict, not handed on": Form(first=False, second=True, handed_on=False),
}


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level(logging.INFO, logger=LOGGER)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == LOGGER and r.levelno == logging.WARNING]


def run(model, steps=2):
    return sample(model, POSITIVE, NEGATIVE, steps=steps)


def in_both_orders(flux, form, inputs, caplog, steps=2):
    """The picture, the same whichever node comes first, and what was warned of in one of the two samplings."""
    before = run(guided(OtherForward(form).on(flux), **inputs), steps)
    caplog.clear()
    after = run(OtherForward(form).on(guided(flux, **inputs)), steps)
    assert torch.equal(before, after)
    return after, warnings(caplog)


@pytest.fixture(scope="module")
def plain(flux):
    return run(flux)


def test_the_stand_in_is_fluxs_own_forward(flux, plain):
    assert torch.equal(run(OtherForward(Form()).on(flux)), plain)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ACTING)
def test_guidance_acts_wherever_the_options_come(flux, plain, caplog, form, case):
    out, said = in_both_orders(flux, ACTING[form], CASES[case], caplog)
    assert not said and torch.equal(out, run(guided(flux, **CASES[case])))
    assert not torch.equal(out, plain)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", DEAF)
def test_where_the_attention_is_out_of_reach_one_line_says_so(flux, plain, caplog, form, case):
    out, said = in_both_orders(flux, DEAF[form], CASES[case], caplog)
    if case == "negative prompt":
        # Its text reaches the blocks, and nothing has to be disturbed.
        assert torch.equal(out, run(guided(flux, **CASES[case])))
        assert not torch.equal(out, plain) and not said
    else:
        (said,) = said
        assert torch.equal(out, plain) and "double block 1 goes on without guidance" in said
        assert "does not hand transformer_options on to the block" in said


@pytest.mark.parametrize("case", CASES)
def test_without_options_the_plain_picture_and_one_line(flux, plain, caplog, case):
    out, (said,) = in_both_orders(flux, Form(first=False, handed_on=False), CASES[case], caplog)
    assert torch.equal(out, plain)
    assert "not guided: another pack's forward calls blocks without ComfyUI's transformer_options" in said
    last = [r.getMessage() for r in caplog.records if r.name == LOGGER][-1]
    assert last == "NAG-PAG guided nothing: the blocks were called without options, as said above."


FORMS = {
    "cached": (Form(cached=True), []),
    "cached, in the second dict": (Form(cached=True, first=False, second=True), []),
    "twice": (Form(twice=(1, 2)), []),
    "skipped": (Form(skipped=(2,)), ["double block 2 never reached: another patch skips it"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_in_the_attention_each_call_is_guided(flux, caplog, form):
    form, expected = FORMS[form]
    out, said = in_both_orders(flux, form, {"blocks": "1, 2"}, caplog, steps=4)
    with guided_host((1, 2), picture_tokens()):
        by_hand = run(OtherForward(form).on(flux), steps=4)
    effect = (by_hand - run(OtherForward(form).on(flux), steps=4)).abs().max()
    assert effect > 1e-3 and (out - by_hand).abs().max() < 1e-4 * effect + 1e-6
    assert len(said) == len(expected) and all(one in other for one, other in zip(expected, said, strict=True))


@pytest.mark.parametrize("case", ["double blocks", "output", "negative prompt"])
@pytest.mark.parametrize("form", FORMS)
def test_a_branch_goes_where_the_blocks_are_called(flux, caplog, form, case):
    form, expected = FORMS[form]
    out, said = in_both_orders(flux, form, CASES[case], caplog, steps=4)
    assert torch.isfinite(out).all() and not torch.equal(out, run(OtherForward(form).on(flux), steps=4))
    needed = "2" in CASES[case]["blocks"] and case != "negative prompt"  # which the chosen blocks do not disturb
    assert len(said) == len(expected) * needed and all(expected[0] in one for one in said)


def test_blocks_wrapped_in_one_are_guided_as_the_first_alone(flux, caplog):
    out, said = in_both_orders(flux, Form(wrapped=True), {"blocks": "0"}, caplog)
    assert not said and torch.equal(out, run(guided(flux, blocks="0")))
    out, (said,) = in_both_orders(flux, Form(wrapped=True), {"blocks": "2"}, caplog)
    assert torch.equal(out, run(flux)) and "double block 2 never reached" in said


def test_a_block_called_with_a_part_of_the_rows_stays_plain(flux, caplog):
    """A patch that runs a block row by row: nobody says which of the rows are the prompt's."""

    def by_rows(block):
        def replacement(args, extra):
            def row(i):
                return {k: v[i : i + 1] if torch.is_tensor(v) and len(v) == rows else v for k, v in args.items()}

            rows = len(args["img"])
            calls = [block(row(i), extra) for i in range(rows)]
            return {name: torch.cat([call[name] for call in calls]) for name in ("img", "txt")}

        return replacement

    ours = guided(flux, blocks="1")
    block = ours.model_options["transformer_options"]["patches_replace"]["dit"]["double_block", 1]
    ours.set_model_patch_replace(by_rows(block), "dit", "double_block", 1)
    theirs = flux.clone()
    theirs.set_model_patch_replace(by_rows(lambda args, extra: extra["original_block"](args)), "dit", "double_block", 1)
    out, plain = (sample(model, POSITIVE, cfg=2.0, steps=1, size=(2, 8, 8)) for model in (ours, theirs))
    (said,) = warnings(caplog)
    assert torch.equal(out, plain) and "another patch calls it with 1 rows at once, of" in said

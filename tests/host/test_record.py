"""What a record says of a run, against numbers taken inside the host's own layers with none of our code."""

import contextlib
import gc
import json
import warnings

import comfy.ldm.flux.layers as layers
import comfy.model_management
import pytest
import torch
from nag_pag_flux.nagpag.diagnostics.plot import draw
from nag_pag_flux.nagpag.diagnostics.record import KEPT_RUNS, Guidance, Record, Recording, Row
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from oracle import guided_tokens
from sampling import guided, picture_tokens, prompt, sample

POSITIVE = prompt(1)
TOKENS = picture_tokens()
NUMBERS = ("ratio", "clamped", "change", "cosine", "norm_ratio")


def recorded(model, **inputs):
    record = Record()
    return record_model(guided(model, **inputs), record), record


def by_hand(z_pos, z_neg, scale, tau=2.5, alpha=0.25):
    """The five numbers of one evaluation in float64; both are (rows, tokens, features)."""
    z_pos, z_neg = z_pos.double(), z_neg.double()
    z = guided_tokens(z_pos, z_neg, scale, tau, alpha)
    l1 = lambda t: t.norm(p=1, dim=-1)  # noqa: E731
    ratio = l1(z_pos + scale * (z_pos - z_neg)) / l1(z_pos)
    cosine = (z_pos * z_neg).sum(-1) / (z_pos.norm(dim=-1) * z_neg.norm(dim=-1))
    change = l1(z - z_pos).sum() / l1(z_pos).sum()
    clamped = (ratio > tau).double().mean()
    numbers = [ratio.mean(), clamped, change, cosine.mean(), l1(z_neg).sum() / l1(z_pos).sum()]
    return torch.stack(numbers).tolist(), l1(z - z_pos)[0] / l1(z_pos)[0]


@contextlib.contextmanager
def watched_host(blocks, scales):
    """The host guides `blocks` itself and notes what it saw: (sigma, block, five numbers, map)."""
    plain, seen = layers.attention, []

    def attention(q, k, v, pe, mask=None, transformer_options={}):
        z = plain(q, k, v, pe, mask=mask, transformer_options=transformer_options)
        block, sigma = transformer_options["block_index"], transformer_options["sigmas"][0].item()
        if transformer_options["block_type"] == "double" and block in blocks:
            text, minus = z.shape[1] - TOKENS, v.permute(0, 2, 1, 3).flatten(2)
            numbers, moved = by_hand(z[:, text:], minus[:, text:], scales(sigma))
            seen.append((sigma, block, numbers, moved))
            z[:, text:] = guided_tokens(z[:, text:], minus[:, text:], scales(sigma), 2.5, 0.25).to(z.dtype)
        return z

    layers.attention = attention
    try:
        yield seen
    finally:
        layers.attention = plain


def check(rows, seen):
    assert len(rows) == len(seen)
    for row, (sigma, block, numbers, _) in zip(rows, seen, strict=True):
        assert row.sigma == pytest.approx(sigma) and row.block == f"double block {block}"
        assert [getattr(row, name) for name in NUMBERS] == pytest.approx(numbers, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_numbers_are_those_taken_in_the_hosts_own_layers(flux, scale):
    model, record = recorded(flux, scale=scale, blocks="1, 2")
    sample(model, POSITIVE, size=(2, 8, 12))
    with watched_host((1, 2), lambda sigma: scale) as seen:
        sample(flux, POSITIVE, size=(2, 8, 12))
    (recording,) = record.recordings
    check(recording.rows, seen)
    assert [row.step for row in recording.rows] == [1, 1, 2, 2, 3, 3] and recording.state == "finished"
    assert {(row.branch, row.evaluations) for row in recording.rows} == {("computed", 1)}
    for sigma, block, _, moved in seen[-2:]:
        shown = recording.maps[0, f"double block {block}"]
        assert shown.shape == (4, 6), sigma
        torch.testing.assert_close(shown.flatten().double(), moved, rtol=5e-3, atol=5e-3)


def test_the_strength_is_the_schedules_and_the_blocks_own(flux):
    model, record = recorded(flux, blocks="1:2, 2", schedule="linear fade-out")
    sample(model, POSITIVE, steps=4)
    own = [row.strength for row in record.recordings[0].rows if row.block == "double block 1"]
    node = [row.strength for row in record.recordings[0].rows if row.block == "double block 2"]
    # x is the percent that the host gives the step's sigma.
    sampling = flux.get_model_object("model_sampling")
    percents = torch.linspace(0, 1, 10001, dtype=torch.float64).tolist()
    schedule = record.recordings[0].schedule[:4]
    expected = [1 - min(percents, key=lambda p: abs(float(sampling.percent_to_sigma(p)) - s)) for s in schedule]
    assert own == pytest.approx([2 * y for y in expected], abs=1e-3)
    assert node == pytest.approx([3 * y for y in expected], abs=2e-3)


@pytest.mark.parametrize(
    "inputs", [{"blocks": "1, 2"}, {"blocks": "1", "reach": "output", "renew_every": 3}, {"scale": 0.0}]
)
def test_recording_changes_no_bit_and_guidance_may_come_after_it(flux, inputs):
    expected = sample(guided(flux, **inputs), POSITIVE, steps=4)
    before, first = recorded(flux, **inputs)
    second = Record()
    after = guided(record_model(flux, second), **inputs)
    assert torch.equal(sample(before, POSITIVE, steps=4), expected)
    assert torch.equal(sample(after, POSITIVE, steps=4), expected)
    assert first.recordings[0].rows == second.recordings[0].rows


def test_a_branch_that_is_reused_is_said(flux):
    model, record = recorded(flux, blocks="1", reach="double blocks", renew_every=3)
    sample(model, POSITIVE, steps=5)
    rows = record.recordings[0].rows
    assert [row.branch for row in rows] == ["computed", "reused", "reused", "computed", "reused"]
    assert {row.block for row in rows} == {"double block 3"}


def test_heads_and_single_blocks_are_recorded(flux):
    model, record = recorded(flux, blocks="1[0], s1")
    sample(model, POSITIVE, steps=2)
    assert [row.block for row in record.recordings[0].rows] == ["double block 1", "single block 1"] * 2


def test_evaluations_of_one_step_are_averaged(flux):
    model, record = recorded(flux, blocks="1")
    sample(model, prompt(1) + prompt(3), steps=3, sampler="heun")
    # Heun looks ahead to the next step's sigma, and there are two prompts.
    assert [row.evaluations for row in record.recordings[0].rows] == [2, 4, 4]


def test_without_a_record_nothing_is_measured(flux, monkeypatch):
    from nag_pag_flux.nagpag.patch import merge

    monkeypatch.setattr(merge, "measure", lambda *args: 1 / 0)
    sample(guided(flux), POSITIVE)


def test_two_records_at_once_say_the_same(flux):
    model, first = recorded(flux)
    second = Record()
    sample(record_model(model, second), POSITIVE)
    assert first.recordings[0].rows == second.recordings[0].rows and first.recordings[0].rows


def test_a_latent_finds_the_run_that_made_it(flux):
    model, record = recorded(flux)
    made = [sample(model, POSITIVE, seed=seed, steps=steps) for seed, steps in ((1, 2), (2, 3))]
    for samples, steps in zip(made, (2, 3), strict=True):
        recording, matched = record.of(samples.half())
        assert matched and recording.steps == steps
    recording, matched = record.of(made[0] + 1)
    assert not matched and recording.steps == 3
    for seed in range(KEPT_RUNS):
        sample(model, POSITIVE, seed=seed, steps=1)
    assert len(record.recordings) == KEPT_RUNS


def test_an_interrupted_run_keeps_what_it_has(flux):
    def stop(step, *args):
        if step == 1:
            raise comfy.model_management.InterruptProcessingException()

    model, record = recorded(flux, blocks="1")
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, POSITIVE, steps=4, callback=stop)
    (recording,) = record.recordings
    assert recording.state == "interrupted" and [row.step for row in recording.rows] == [1, 2]
    assert "interrupted" in recording.problems()[0]
    sample(model, POSITIVE, steps=4)
    assert len(record.recordings[-1].rows) == 4


def test_a_run_that_fails_says_so_and_raises(flux):
    def fails(step, *args):
        raise RuntimeError("halfway")

    model, record = recorded(flux)
    with pytest.raises(RuntimeError, match="halfway"):
        sample(model, POSITIVE, callback=fails)
    assert not record.recordings[0].rows and "RuntimeError: halfway" in record.recordings[0].problems()[0]


def test_a_run_that_fails_in_its_first_step_says_that_and_not_that_the_model_was_not_called(flux):
    def fails(args, extra):
        raise KeyError("made to fail")

    broken = flux.clone()
    broken.set_model_patch_replace(fails, "dit", "double_block", 0)
    model, record = recorded(broken)
    second = Record()
    for one, kept in ((model, record), (guided(record_model(broken, second)), second)):
        with pytest.raises(KeyError):
            sample(one, POSITIVE)
        first, why = kept.recordings[0].problems()
        assert "sampling ended in an error" in first and "made to fail" in first
        assert "not called" not in why and ("came to its end" in why or "made to fail" in why)


EMPTY = [
    ({"scale": 0.0}, "scale is 0"),
    ({"blocks": "1:0"}, "every chosen block has scale 0"),
    ({"start_percent": 0.5, "end_percent": 0.5}, "no step of this sampling lay between start_percent and end_percent"),
]


@pytest.mark.parametrize("inputs, why", EMPTY)
def test_an_empty_record_says_why(flux, inputs, why):
    model, record = recorded(flux, **inputs)
    sample(model, POSITIVE)
    assert not record.recordings[0].rows and why in record.recordings[0].problems()[0]


def test_a_record_without_guidance_says_so(flux):
    record = Record()
    assert torch.equal(sample(record_model(flux, record), POSITIVE), sample(flux, POSITIVE))
    assert "no NAG-PAG Guidance is on this model" in record.recordings[0].problems()[0]


def test_only_reduced_numbers_outlive_the_run(flux):
    model, record = recorded(flux, blocks="1, 2")
    sample(model, POSITIVE, steps=1)
    gc.collect()
    before = sum(isinstance(item, torch.Tensor) for item in gc.get_objects())
    for seed in range(KEPT_RUNS):
        sample(model, POSITIVE, steps=3, seed=seed)
    gc.collect()
    # One map per block and one fingerprint for each run that is kept.
    assert sum(isinstance(item, torch.Tensor) for item in gc.get_objects()) <= before + 3 * (KEPT_RUNS - 1) + 2
    assert all(not recording.pending for recording in record.recordings)


def test_the_json_has_every_number(flux):
    model, record = recorded(flux, blocks="1")
    sample(model, POSITIVE, steps=2)
    whole = json.loads(record.recordings[0].as_json())
    assert whole["state"] == "finished" and whole["steps"] == 2 and len(whole["sigmas"]) == 3
    assert whole["guidances"][0]["settings"]["scale"] == 3.0
    assert [row["step"] for row in whole["rows"]] == [1, 2] and set(NUMBERS) < set(whole["rows"][0])


def no_constant(name):
    raise ValueError(f"{name} is not JSON")


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf"), 0.0])
@pytest.mark.parametrize(
    "inputs", [{"blocks": "1"}, {"blocks": "1", "schedule": "bell", "start_percent": 0.1}], ids=str
)
def test_sigmas_that_are_no_numbers_are_null(flux, odd, inputs):
    model, record = recorded(flux, **inputs)
    sample(model, POSITIVE, sigmas=torch.tensor([1.0, odd, 0.5, 0.0]))
    (recording,) = record.recordings
    whole = json.loads(recording.as_json(), parse_constant=no_constant)
    assert whole["sigmas"] == [1.0, odd if odd == 0 else None, 0.5, 0.0] and whole["steps"] == 3
    assert draw(recording).shape == (960, 1280, 3)


def test_whatever_is_kept_is_json():
    """Infinities and what is no number, in every place that holds one."""
    nan, inf = float("nan"), float("inf")
    row = Row(1, inf, 0, "double block 1", nan, "computed", nan, inf, -inf, nan, inf, evaluations=1)
    guidance = Guidance("", {"scale": nan, "nested": [inf, {"x": (nan, 1.5)}]}, ("double block 1",))
    recording = Recording(
        "finished", [inf, nan, 0.0], [guidance], [row], {(0, "double block 1"): torch.full((2, 2), inf)}
    )
    whole = json.loads(recording.as_json(), parse_constant=no_constant)
    assert whole["sigmas"] == [None, None, 0.0]
    assert whole["guidances"][0]["settings"] == {"scale": None, "nested": [None, {"x": [None, 1.5]}]}
    assert {name for name, value in whole["rows"][0].items() if value is None} == {"sigma", "strength", *NUMBERS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw(recording).shape == (960, 1280, 3)


def test_a_model_that_gives_no_numbers_is_recorded(flux):
    """Its latent is all nan: the picture is lost by the model, and the record says what it can."""
    model, record = recorded(flux, blocks="1")
    samples = sample(model, [[prompt(1)[0][0] * float("nan"), prompt(1)[0][1]]], steps=2)
    assert torch.isnan(samples).all()
    whole = json.loads(record.recordings[0].as_json(), parse_constant=no_constant)
    assert all(row["ratio"] is None for row in whole["rows"]) and len(whole["rows"]) == 2
    assert draw(*record.of(samples)).shape == (960, 1280, 3)

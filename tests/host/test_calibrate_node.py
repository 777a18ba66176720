"""NAG-PAG Calibrate in the host: on the shipped model it tells harm from help, and what it asks is what it says."""

import json
import math
import re

import comfy.model_management
import comfy.sample
import pytest
import torch
from nag_pag_flux.lab import host
from nag_pag_flux.lab.evidence import runs, sampling
from nag_pag_flux.lab.evidence.subjects import Subject
from nag_pag_flux.nagpag import candidates
from nag_pag_flux.nagpag.calibration import search, series, told
from nag_pag_flux.nagpag.calibration.probe import predict
from nag_pag_flux.nagpag.calibration.recovery import Losses, change, loss
from nag_pag_flux.nagpag.calibration.search import Found, Search
from nag_pag_flux.nagpag.calibration.series import Series
from nag_pag_flux.nagpag.candidates import Candidate
from nag_pag_flux.nagpag.comparison.sheet import GAP
from nag_pag_flux.nagpag.inputs.calibration import CALIBRATE
from nag_pag_flux.nagpag.kept import Kept
from nag_pag_flux.nagpag.measure import Measured
from nag_pag_flux.nagpag.settings import Settings
from nag_pag_flux.nodes.calibration import NAGPAGCalibrate
from sampling import guided, latent, prompt, recorded

GIVEN = {
    "candidates": "1-3; 2",
    "alphas": "0.2, 0.8",
    "reach": "attention",
    "pictures": 4,
    "steps": 2,
    "seed": 3,
    "sigma": 0.6,
}


@torch.inference_mode()  # as the host runs nodes
def run(model, positive, vae=None, batch=2, **inputs):
    """The node on an empty latent."""
    latents = {"samples": torch.zeros(batch, 16, 8, 12)}
    given = {"empty": prompt(99), **GIVEN, **inputs}
    return NAGPAGCalibrate.execute(model=model, positive=positive, latent_image=latents, vae=vae, **given).args


def search_of(model, guided, asked):
    """A search, and that nothing was found before it."""
    return Search(model, guided, "output", asked), Found(Kept(), Kept())


@pytest.fixture(scope="module")
def found(flux, vae):
    return run(flux, [*prompt(1), *prompt(2, tokens=5)], vae)


def test_every_candidate_is_tried_and_the_best_comes_out(found):
    spec, alpha, image, numbers, _ = found
    told = json.loads(numbers)
    assert {(row["blocks"], row["alpha"]) for row in told["tried"]} == {
        (b, a) for b in ("1-3", "2") for a in (0.2, 0.8)
    }
    assert [row["change"] for row in told["tried"]] == sorted((row["change"] for row in told["tried"]), reverse=True)
    best = told["tried"][0]
    helps = best["change"] > 0
    assert (spec, alpha) == (best["blocks"], best["alpha"] if helps else 0)
    assert (told["chosen"] is not None) == helps
    assert image.shape[0] == 1 and image.shape[3] == 3 and float(image.min()) >= 0 and float(image.max()) == 1


def test_the_numbers_are_those_of_a_calibration_by_hand(flux, found):
    """Each batch a prompt by turns; what is drawn under guidance is noised and denoised by the plain model."""

    def losses(model):
        own, empty = [], []
        for batch, text in enumerate((prompt(1), prompt(2, tokens=5))):
            nothing = torch.zeros(2, 16, 8, 12)
            noise, again = (comfy.sample.prepare_noise(nothing, 3 + batch + more) for more in (0, series.NOISING))
            pictures = comfy.sample.sample(
                model, noise, 2, 1.0, "euler", "simple", text, text, nothing, disable_pbar=True, seed=3 + batch
            )
            for losses, asked in ((own, text), (empty, prompt(99))):
                losses.append(loss(*predict(flux, asked, pictures, again, torch.tensor([0.6])))[0])
        return Losses(torch.cat(own), torch.cat(empty))

    rows = json.loads(found[3])["tried"]
    defaults = Settings()
    for row in rows:
        inputs = {
            "blocks": row["blocks"],
            "alpha": row["alpha"],
            **{name: getattr(defaults, name) for name in ("tau", "perturbation", "start_percent", "renew_every")},
        }
        by_hand = change(losses(guided(flux, **inputs)), losses(flux))
        assert (row["change"], row["error"]) == pytest.approx((by_hand.value, by_hand.error), abs=1e-6)
    assert len({row["change"] for row in rows}) == 4


def test_pictures_of_the_best_and_of_off_are_on_the_sheet(flux, vae, found):
    """Those that the host's own nodes draw of each batch's prompt and noise: the first of each."""
    from nodes import KSampler, VAEDecode

    best = json.loads(found[3])["tried"][0]
    values = {"blocks": best["blocks"], "alpha": best["alpha"], "perturbation": 0.1, "start_percent": 0.45}
    models = (flux, guided(flux, tau=1.75, renew_every=4, **values))
    sheet, side = found[4][0], (64, 96)
    assert sheet.shape[1] == 2 * side[1] + GAP
    top = sheet.shape[0] - 2 * side[0] - (sheet.shape[0] - _first_row(sheet, side[0]) - 2 * side[0])
    step = sheet.shape[0] - side[0] - top
    with torch.inference_mode():
        for y, model in enumerate(models):
            for x, text in enumerate((prompt(1), prompt(2, tokens=5))):
                empty = {"samples": torch.zeros(2, 16, 8, 12)}
                (samples,) = KSampler().sample(model, 3 + x, 2, 1.0, "euler", "simple", text, text, empty)
                (own,) = VAEDecode().decode(vae, samples)
                left = x * (side[1] + GAP)
                shown = sheet[top + y * step : top + y * step + side[0], left : left + side[1]]
                assert (shown - own[0]).abs().max() <= 1 / 255 + 1e-6, (y, x)


def _first_row(sheet, height):
    """How high everything above the first picture is: the first of so many lines of which none is white."""
    filled = [bool((line < 0.999).any()) for line in sheet]
    return next(y for y in range(len(filled)) if all(filled[y : y + height]))


def test_what_was_found_before_an_interruption_is_not_drawn_again(flux, vae, found, sampled, interrupt_at):
    """The host's own interruption, as its button sets it, within the third of ten batches."""
    given = {"positive": [*prompt(1), *prompt(2, tokens=5)], "vae": vae, "empty": prompt(99)}
    shown = interrupt_at(5)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(flux, **given)
    assert len(sampled) == 3 and shown[-1] == (5, 10 * 2 + 4)
    shown.clear()
    again = run(flux, **given)
    assert len(sampled) == 3 + 8, "two of ten were whole"
    assert shown[-1] == (8 * 2 + 4, 8 * 2 + 4)
    assert again[:2] == found[:2] and again[3] == found[3] and torch.equal(again[4], found[4]), "as if uninterrupted"


def test_only_what_is_missing_is_drawn(flux, vae, monkeypatch):
    """Beside what was drawn first; what changes a picture or what is seen in it is another."""
    begun = recorded(monkeypatch)
    given = {"positive": [*prompt(1), *prompt(2, tokens=5)], "vae": vae, "empty": prompt(99)}
    asked = [
        ({}, 10),
        ({}, 0),
        ({"pictures": 8}, 10),
        ({"candidates": "2; 3", "alphas": "0.8, 0.5"}, 6),
        ({"candidates": "2", "alphas": "0.8", "seed": 4}, 4),  # the next seed's noise, but of the other prompt
        ({"candidates": "2", "alphas": "0.8", "reach": "output"}, 2),
        ({"candidates": "2", "alphas": "0.8", "batch": 1}, 8),
        *(({"candidates": "2", "alphas": "0.8", **other}, 4) for other in others_than(given)),
    ]
    for others, missing in asked:
        begun.clear()
        run(**{"model": flux, **given, **others})
        assert len(begun) == missing, others


def others_than(given):
    """What is drawn or looked at otherwise, one at a time."""
    yield from ({"steps": 1}, {"sigma": 0.5}, {"empty": list(given["empty"])}, {"positive": list(given["positive"])})


def test_a_picture_that_is_not_kept_is_drawn_again(flux, sampled):
    asked = Series(prompt(1), prompt(99), latent(2), 4, 2, 0, 0.7)
    plain, found = search_of(flux, {}, asked)
    few = Found(found.losses, Kept(most=0))
    search.compare(plain, few, lambda: None)
    search.compare(plain, found, lambda: None)
    assert len(sampled) == 2
    first, second = search.shown(plain, few, None)
    assert len(sampled) == 4 and first.shape == second.shape == (1, 16, 8, 12)
    again = Found(Kept(), Kept())
    search.compare(plain, again, lambda: None)
    assert all(map(torch.equal, search.shown(plain, again, None), (first, second))) and len(sampled) == 6


def test_it_tells_harm_from_help_on_the_trained_model():
    """As the judges do (docs/evidence.md): on seed 0 the published strength harms, the node's defaults do not."""
    model = Subject("shipped").load()
    prompts = [sampling.conditioning([question.prompt])[0] for question in runs.CHOOSING.rows(0)[0][:: runs.NOISES][:4]]
    latents = torch.zeros(4, *sampling.LATENT)
    asked = Series(prompts, sampling.conditioning([""]), latents, 16, 4, 0, 0.7)
    blocks = search.guided_by(model, "auto", "0.15, 1", "double blocks")
    steps = []
    whole = search_of(model, blocks, asked)
    missing = search.steps_missing(*whole)
    gentle, strong = search.compare(*whole, lambda: steps.append(1))
    assert (gentle.candidate, strong.candidate) == (Candidate("auto", 0.15), Candidate("auto", 1.0))
    assert strong.change.harms and not gentle.change.harms
    assert len(steps) == missing == 3 * 4 * 4
    assert search.best([gentle, strong]) == (gentle.candidate if gentle.change.value > 0 else None)


def test_without_candidates_it_tries_where_the_blocks_begin():
    assert candidates.default_specs(19) == ["0-18", "4-18", "7-18", "9-18", "14-18"]
    assert candidates.default_specs(8) == ["0-7", "2-7", "3-7", "4-7", "6-7"]
    assert candidates.default_specs(1) == ["0-0"]
    assert len(candidates.read_candidates(" \n", "0.1,0.2", 19)) == 10


@pytest.mark.parametrize(
    "inputs, quoted",
    [
        ({"candidates": "8, x"}, '"x" is not a block'),
        ({"candidates": "8;" * 10**6}, "is not a text of at most 10000 characters"),
        ({"alphas": "1," * 10**6}, "is not a text of at most 1000 characters"),
        ({"candidates": "8;" * 4000, "alphas": "1," * 400}, "4000 candidates with 400 alphas are 1600000 to try"),
        ({"alphas": "0.1, much"}, "'much' in alphas"),
        ({"alphas": "0"}, "'0' in alphas"),
        ({"alphas": "nan"}, "'nan' in alphas"),
        ({"alphas": " , "}, "alphas is empty"),
    ],
)
def test_a_bad_input_is_refused_before_any_work(flux, monkeypatch, inputs, quoted):
    """Candidates before any model is loaded, alphas before the first picture."""
    monkeypatch.setattr(comfy.sample, "sample", lambda *args, **keywords: pytest.fail("sampled"))
    with pytest.raises(ValueError, match=re.escape(quoted)) as caught:
        run(flux, prompt(1), **inputs)
    assert len(str(caught.value)) < 1000
    if "alphas" not in inputs:
        assert NAGPAGCalibrate.validate_inputs(**inputs) == str(caught.value)


def test_what_comes_over_a_link_is_no_fault():
    assert NAGPAGCalibrate.validate_inputs(candidates=None) is True


def test_what_does_not_fit_is_refused_before_any_work(flux, monkeypatch):
    monkeypatch.setattr(comfy.sample, "sample", lambda *args, **keywords: pytest.fail("sampled"))
    with pytest.raises(ValueError, match="17"):
        run(flux, prompt(1), candidates="1\n17")
    with pytest.raises(ValueError, match="guided already"):
        run(guided(flux), prompt(1))
    with pytest.raises(ValueError, match="2 batches of a prompt each, and there are 3 prompts; raise pictures to 6"):
        run(flux, [*prompt(1), *prompt(2), *prompt(3)])


def test_the_help_page_has_every_input_and_its_default():
    text = (host.REPO / "web" / "docs" / "NAGPAGCalibrate.md").read_text()
    said = dict(re.findall(r"^- \*\*(\w+)\*\*(?: \((.*?)\))?:", text, flags=re.M))
    inputs = NAGPAGCalibrate.define_schema().inputs
    defaults = {item.id: getattr(item, "default", None) for item in inputs}
    assert list(said)[: len(defaults)] == list(defaults) == [item.name for item in CALIBRATE.inputs]
    for name, value in defaults.items():
        words = "empty" if value == "" else "" if value is None else str(value)
        assert said[name].split("; ")[0] == words, name


@pytest.mark.parametrize(
    "inputs, quoted",
    [
        ({"sigma": 0.0}, "sigma 0.0"),
        ({"sigma": math.nan}, "sigma nan"),
        ({"steps": 0}, "steps 0"),
        ({"pictures": 0}, "pictures 0"),
        ({"positive": []}, "empty CONDITIONING"),
        ({"positive": prompt(1, area=(4, 4, 0, 0), strength=1.0)}, "(area)"),
        ({"positive": prompt(1, start_percent=0.0, end_percent=0.3)}, "(start_percent, end_percent)"),
    ],
)
def test_what_comes_over_a_link_is_checked_too(flux, inputs, quoted):
    given = {"positive": prompt(1), **inputs}
    with pytest.raises(ValueError, match=re.escape(quoted)):
        run(flux, **given)


def test_the_empty_prompt_differs_in_its_text_alone():
    """Reference pictures and guidance stay; the pooled text and the mask are the empty one's, or none."""
    own = [[torch.ones(1, 5, 4), {"pooled_output": 1, "attention_mask": 2, "guidance": 4.0, "reference_latents": [3]}]]
    empty = [[torch.zeros(1, 2, 4), {"pooled_output": 5, "guidance": 1.0}]]
    ((text, extras),) = series._without_text(own, empty)
    assert text is empty[0][0] and extras == {"pooled_output": 5, "guidance": 4.0, "reference_latents": [3]}


def test_the_last_batch_is_as_small_as_it_must_be():
    asked = Series(prompt(1), prompt(99), latent(4), 6, 2, 2**64 - 1, 0.7)
    assert [(len(batch.latent), batch.seed) for batch in asked.batches()] == [(4, 2**64 - 1), (2, 0)]


def test_a_latent_of_another_models_size_is_fitted(flux, vae):
    """An empty latent that says it is scaled down by 16 becomes one that is scaled down by 8, as in KSampler."""
    sizes = []
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(search, "compare", lambda asked, *_: sizes.append(asked.series.latent.shape) or TRIED)
        patch.setattr(search, "shown", lambda *_: [latent()] * 2)
        empty = {"samples": torch.zeros(2, 4, 4, 6), "downscale_ratio_spacial": 16}
        given = {**GIVEN, "positive": prompt(1), "empty": prompt(99), "latent_image": empty, "vae": vae}
        NAGPAGCalibrate.execute(model=flux, **given)
    assert sizes == [(2, 16, 8, 12)]


TRIED = [search.Tried(Candidate("2", 0.1), Measured(0.1, 0.1))]


def test_what_is_no_number_comes_last(flux, monkeypatch):
    values = iter([0.02, math.nan, 0.05])
    monkeypatch.setattr(search, "_losses", lambda *args: None)
    monkeypatch.setattr(search, "change", lambda *args: Measured(next(values), 0.1))
    asked = Series(prompt(1), prompt(99), latent(2), 2, 2, 0, 0.7)
    tried = search.compare(*search_of(flux, dict.fromkeys(map(str, range(3))), asked), lambda: None)
    assert [one.candidate for one in tried] == ["2", "0", "1"]
    alone = [search.Tried(Candidate("2", 0.1), Measured(math.nan, math.nan))]
    assert json.loads(told.as_json(alone))["tried"] == [{"blocks": "2", "alpha": 0.1, "change": None, "error": None}]


def test_it_stops_when_it_is_asked_to(flux):
    def step():
        raise comfy.model_management.InterruptProcessingException

    asked = Series(prompt(1), prompt(99), latent(2), 2, 2, 0, 0.7)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        search.compare(*search_of(flux, {}, asked), step)


def test_where_nothing_helps_guidance_is_left_off():
    tried = [search.Tried(Candidate("3-7", 0.15), Measured(-0.001, 0.02))]
    assert search.best(tried) is None and json.loads(told.as_json(tried))["chosen"] is None
    tried = [search.Tried(Candidate("3-7", 0.15), Measured(0.01, 0.02)), *tried]
    assert json.loads(told.as_json(tried))["chosen"] == {"blocks": "3-7", "alpha": 0.15}

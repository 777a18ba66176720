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
from nag_pag_flux.nagpag.inputs.guidance import ADVANCED
from nag_pag_flux.nagpag.kept import Kept
from nag_pag_flux.nagpag.measure import Measured
from nag_pag_flux.nagpag.settings import Settings
from nag_pag_flux.nodes.calibration import NAGPAGCalibrate
from nag_pag_flux.nodes.guidance import NAGPAGGuidanceAdvanced
from sampling import guided, latent, prompt, recorded, sample

GIVEN = {
    "candidates": "1-3; 2",
    "alphas": "0.2, 0.8",
    "reach": "attention",
    "negative_prompt": "off",
    "pictures": 4,
    "steps": 2,
    "seed": 3,
    "sigma": 0.6,
}
WITH_NEGATIVE = {"candidates": "", "reach": "prediction", "negative_prompt": "sampler's"}


@torch.inference_mode()  # as the host runs nodes
def run(model, positive, vae=None, batch=2, **inputs):
    """The node on an empty latent."""
    latents = {"samples": torch.zeros(batch, 16, 8, 12)}
    given = {"empty": prompt(99), **GIVEN, **inputs}
    return NAGPAGCalibrate.execute(model=model, positive=positive, latent_image=latents, vae=vae, **given).args


def search_of(model, guided, asked):
    """A search, and that nothing was found before it."""
    return Search(model, guided, Settings(), asked), Found(Kept(), Kept())


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
    assert (told["reach"], told["negative_prompt"]) == ("attention", "off")
    assert image.shape[0] == 1 and image.shape[3] == 3 and float(image.min()) >= 0 and float(image.max()) == 1


def losses_by_hand(flux, drawn, texts, empty):
    """What the plain model makes of pictures, noised again: batches of each text, of seed 3 and those that follow."""
    own, without = [], []
    for batch, (pictures, text) in enumerate(zip(drawn, texts, strict=True)):
        again = comfy.sample.prepare_noise(torch.zeros(2, 16, 8, 12), 3 + batch + series.NOISING)
        for losses, asked in ((own, text), (without, empty)):
            losses.append(loss(*predict(flux, asked, pictures, again, torch.tensor([0.6])))[0])
    return Losses(torch.cat(own), torch.cat(without))


def by_ksampler(model, texts, negative, steps):
    """A batch of each text as the host's own node draws it."""
    from nodes import KSampler

    latents = {"samples": torch.zeros(2, 16, 8, 12)}
    asked = ((3 + i, steps, 1.0, "euler", "simple", text, negative, latents) for i, text in enumerate(texts))
    return [KSampler().sample(model, *one)[0]["samples"] for one in asked]


def test_the_numbers_are_those_of_a_calibration_by_hand(flux, found):
    """Each batch a prompt by turns; what is drawn under guidance is noised and denoised by the plain model."""
    texts = [prompt(1), prompt(2, tokens=5)]

    def losses(model):
        return losses_by_hand(flux, by_ksampler(model, texts, prompt(3), 2), texts, prompt(99))

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


def test_against_the_empty_prompt_it_draws_what_ksampler_draws_with_the_default_node(flux, vae, monkeypatch):
    """To the bit, so that what it finds is found for that; of the empty prompt the text alone counts, as is said."""
    texts, empty, drawn, draw = [prompt(1), prompt(2, tokens=5)], prompt(99, tokens=7), [], search.draw
    monkeypatch.setattr(search, "draw", lambda *asked: drawn.append(draw(*asked)) or drawn[-1])
    given = {**WITH_NEGATIVE, "empty": prompt(99, tokens=7, guidance=9.0), "alphas": "0.35, 1", "steps": 4}
    numbers = json.loads(run(flux, [*texts[0], *texts[1]], vae, **given)[3])
    expected, found = [], {}
    with torch.inference_mode():
        for alpha in (0.0, 0.35, 1.0):
            model = NAGPAGGuidanceAdvanced.execute(model=flux, **{**ADVANCED.defaults, "alpha": alpha}).args[0]
            pictures = by_ksampler(model, texts, empty, 4)
            found[alpha] = losses_by_hand(flux, pictures, texts, empty)
            expected += pictures
    assert [torch.equal(*both) for both in zip(drawn, expected, strict=True)] == [True] * 6
    assert not any(torch.equal(expected[i], expected[j]) for i in range(6) for j in range(i))
    by_hand = {alpha: change(found[alpha], found[0.0]) for alpha in (0.35, 1.0)}
    rows = {row["alpha"]: (row["change"], row["error"]) for row in numbers["tried"]}
    assert list(rows) == sorted(by_hand, key=lambda alpha: -by_hand[alpha].value)
    assert all(rows[alpha] == pytest.approx((one.value, one.error), abs=1e-9) for alpha, one in by_hand.items())
    assert {row["blocks"] for row in numbers["tried"]} == {"auto"}
    assert (numbers["reach"], numbers["negative_prompt"]) == ("prediction", "sampler's")


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
    given = {"positive": [*prompt(1), *prompt(2, tokens=5)], "vae": vae, "empty": prompt(99), "steps": 1}
    asked = [
        ({}, 10),
        ({}, 0),
        ({"pictures": 8}, 10),
        ({"candidates": "2; 3", "alphas": "0.8, 0.5"}, 6),
        ({"candidates": "2", "alphas": "0.8", "seed": 4}, 4),  # the next seed's noise, but of the other prompt
        ({"candidates": "2", "alphas": "0.8", "reach": "output"}, 2),
        ({"candidates": "2", "alphas": "0.8", "reach": "output", "negative_prompt": "sampler's"}, 2),
        ({"candidates": "2", "alphas": "0.8", "batch": 1}, 8),
        *(({"candidates": "2", "alphas": "0.8", **other}, 4) for other in others_than(given)),
    ]
    for others, missing in asked:
        begun.clear()
        run(**{"model": flux, **given, **others})
        assert len(begun) == missing, others


def others_than(given):
    """What is drawn or looked at otherwise, one at a time."""
    yield from ({"steps": 2}, {"sigma": 0.5}, {"empty": list(given["empty"])}, {"positive": list(given["positive"])})


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
    blocks = search.guided_by(model, "auto", "0.15, 1", Settings(reach="double blocks", negative_prompt="off"))
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
    off = Settings(negative_prompt="off")
    assert len(candidates.read_candidates(" \n", "0.1,0.2", off, 19)) == 10
    alone = [Candidate("auto", float(alpha)) for alpha in ("0.2", "0.35", "0.5", "0.75", "1")]
    for reach in ("prediction", "output", "double blocks"):  # with the sampler's negative prompt
        assert candidates.read_candidates("", CALIBRATE.defaults["alphas"], Settings(reach=reach), 19) == alone
    single = candidates.read_candidates("s1; s2", "1", Settings(reach="double blocks"), 19)
    assert single == [Candidate("s1", 1.0), Candidate("s2", 1.0)], "they say where the branch is merged"


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
        ({**WITH_NEGATIVE, "candidates": "1-3; 2"}, "2 candidates, '1-3' and '2' among them, would draw the same"),
        ({**WITH_NEGATIVE, "reach": "output", "candidates": "2\n3"}, "or switch negative_prompt off"),
        ({**WITH_NEGATIVE, "empty": [[torch.zeros(1, 9, 64), {}]]}, "empty is all zeros (ConditioningZeroOut)"),
    ],
)
def test_a_bad_input_is_refused_before_any_work(flux, monkeypatch, inputs, quoted):
    """Block specs before any model is loaded, the rest before the first picture."""
    monkeypatch.setattr(comfy.sample, "sample", lambda *args, **keywords: pytest.fail("sampled"))
    with pytest.raises(ValueError, match=re.escape(quoted)) as caught:
        run(flux, prompt(1), **inputs)
    assert len(str(caught.value)) < 1000
    if inputs.keys() == {"candidates"}:
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


def test_the_help_page_says_how_long_the_default_search_takes(flux, caplog):
    text = (host.REPO / "web" / "docs" / "NAGPAGCalibrate.md").read_text()
    pictures, steps, alphas = (CALIBRATE.defaults[name] for name in ("pictures", "steps", "alphas"))
    guided = len(candidates.read_candidates("", alphas, Settings(), 19))
    sample(NAGPAGGuidanceAdvanced.execute(model=flux, **ADVANCED.defaults).args[0], prompt(1), steps=steps)
    branch = int(re.search(r"computed at (\d+) of them", caplog.text)[1])
    drawn = (guided + 1) * pictures * steps
    whole = drawn + (guided + 1) * pictures * 2 + guided * pictures * branch
    assert f"{guided + 1} × {pictures} × {steps} = {drawn:,} with" in text and branch == 2
    assert f"{whole:,} in all, which at 0.2 s a step is {whole * 0.2 / 60:.0f} minutes" in text


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


WHOLE = Search(None, {}, Settings(), Series(prompt(1), prompt(99), latent(2), 2, 2, 0, 0.7))
TRIED = [search.Tried(Candidate("2", 0.1), Measured(0.1, 0.1))]


def test_what_is_no_number_comes_last(flux, monkeypatch):
    values = iter([0.02, math.nan, 0.05])
    monkeypatch.setattr(search, "_losses", lambda *args: None)
    monkeypatch.setattr(search, "change", lambda *args: Measured(next(values), 0.1))
    asked = Series(prompt(1), prompt(99), latent(2), 2, 2, 0, 0.7)
    tried = search.compare(*search_of(flux, dict.fromkeys(map(str, range(3))), asked), lambda: None)
    assert [one.candidate for one in tried] == ["2", "0", "1"]
    alone = [search.Tried(Candidate("2", 0.1), Measured(math.nan, math.nan))]
    assert json.loads(told.as_json(WHOLE, alone))["tried"] == [
        {"blocks": "2", "alpha": 0.1, "change": None, "error": None}
    ]


def test_it_stops_when_it_is_asked_to(flux):
    def step():
        raise comfy.model_management.InterruptProcessingException

    asked = Series(prompt(1), prompt(99), latent(2), 2, 2, 0, 0.7)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        search.compare(*search_of(flux, {}, asked), step)


def test_where_nothing_helps_guidance_is_left_off():
    tried = [search.Tried(Candidate("3-7", 0.15), Measured(-0.001, 0.02))]
    assert search.best(tried) is None and json.loads(told.as_json(WHOLE, tried))["chosen"] is None
    tried = [search.Tried(Candidate("3-7", 0.15), Measured(0.01, 0.02)), *tried]
    assert json.loads(told.as_json(WHOLE, tried))["chosen"] == {"blocks": "3-7", "alpha": 0.15}

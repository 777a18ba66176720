"""NAG-PAG Compare in the host: each picture is the one that the host's own nodes draw, and nothing is drawn twice."""

import json
import weakref

import comfy.model_management
import comfy.sample
import numpy as np
import pytest
import torch
from comfy.nested_tensor import NestedTensor
from nag_pag_flux.nagpag import kept
from nag_pag_flux.nagpag.comparison import drawing, sheet
from nag_pag_flux.nagpag.inputs.comparison import COMPARE
from nag_pag_flux.nodes.calibration import NAGPAGCalibrate
from nag_pag_flux.nodes.comparison import NAGPAGCompare
from nag_pag_flux.nodes.guidance import NAGPAGGuidanceAdvanced
from sampling import guided, latent, prompt, recorded

AXES = "scale: 0, 2\nblocks: 1-3; 2\nalpha: 0.5\nnegative_prompt: off"  # off and two settings
INTERRUPTED = comfy.model_management.InterruptProcessingException


def given(flux, vae):
    """What the node is given; anew each time, so that nothing is kept from another one."""
    empty = {"samples": torch.zeros(1, 16, 4, 4)}
    parts = {"model": flux, "positive": prompt(1), "negative": prompt(2, tokens=5), "latent_image": empty, "vae": vae}
    return {**parts, **COMPARE.defaults, "axes": AXES, "seed": 7, "seeds": 2, "steps": 2}


@pytest.fixture
def inputs(flux, vae):
    return given(flux, vae)


@pytest.fixture(scope="module")
def base(flux, vae):
    """One comparison that many look at: its sheet, pictures and numbers, and the samplings that it began."""
    with pytest.MonkeyPatch.context() as patched:
        begun = recorded(patched)
        return (*compared(given(flux, vae)), begun)


@torch.inference_mode()  # as the host runs nodes
def compared(inputs, **others):
    sheet, pictures, numbers = NAGPAGCompare.execute(**{**inputs, **others}).args
    return sheet, pictures, json.loads(numbers)


@torch.inference_mode()
def by_hand(inputs, seed, settings):
    """The stock KSampler and VAE Decode behind the guidance node, or without it."""
    from nodes import KSampler, VAEDecode

    model = inputs["model"]
    if settings is not None:
        model = NAGPAGGuidanceAdvanced.execute(model=model, **settings).args[0]
    how = {name: inputs[name] for name in ("steps", "cfg", "sampler_name", "scheduler", "denoise")}
    conditioning = {name: inputs[name] for name in ("positive", "negative")}
    (samples,) = KSampler().sample(model, seed, **how, **conditioning, latent_image=inputs["latent_image"])
    return VAEDecode().decode(inputs["vae"], samples)[0]


def check_each(inputs, pictures, told):
    """Every picture is the one that the host's nodes draw, and each is there once."""
    drawn = {}
    for one in told["pictures"]:
        key = one["seed"], json.dumps(one["settings"])
        drawn[key] = drawn[key] if key in drawn else by_hand(inputs, one["seed"], one["settings"])
        assert torch.equal(pictures[one["picture"]], drawn[key][one["of_batch"]])
    assert len(pictures) == len(told["pictures"]) == len(drawn) * len(inputs["latent_image"]["samples"])
    assert len({key[0] for key in drawn}) == inputs["seeds"]
    assert len({key[1] for key in drawn if key[1] == "null"}) == 1
    assert len(torch.unique(pictures, dim=0)) == len(pictures), "each differs from the others"


def test_every_picture_is_the_plain_graphs(inputs, base):
    _, pictures, told, _ = base
    assert len(pictures) == 6
    check_each(inputs, pictures, told)


OTHERS = [
    {"sampler_name": "euler_ancestral", "scheduler": "beta", "axes": ""},
    {"sampler_name": "dpmpp_sde", "cfg": 2.0, "axes": "guide_unconditional: true\nreach: output"},
    {"axes": "preset: NAG with a negative prompt\nstart_percent: 0", "seed": 2**64 - 1},
    {"denoise": 0.5, "axes": "preset: as published\nblocks: 1"},
]


@pytest.mark.parametrize("others", OTHERS, ids=str)
def test_every_picture_is_the_plain_graphs_however_it_is_sampled(inputs, others):
    if "denoise" in others:  # a picture to start from, a batch of two, of which a part stays
        mask = torch.ones(1, 1, 32, 32)
        mask[..., :12] = 0
        inputs["latent_image"] = {"samples": latent(2, 4, 4), "noise_mask": mask, "batch_index": [4, 1]}
    inputs |= {"seeds": 1, **others}
    _, pictures, told = compared(inputs)
    check_each(inputs, pictures, told)


def test_the_sheet_shows_each_picture_where_the_numbers_say(base):
    image, pictures, told, _ = base
    height, width = pictures.shape[1:3]
    columns, rows = told["sheet"]["columns"], told["sheet"]["rows"]
    assert columns == ["scale 0 (off)", "scale 2"]
    blocks = ("blocks 1-3", "blocks 2")
    assert [row["label"] for row in rows] == [f"seed {seed}, {label}" for seed in (7, 8) for label in blocks]
    saved = np.clip(255.0 * pictures.numpy(), 0, 255).astype(np.uint8)
    step = (image.shape[1] - height - _top(image, height)) // (len(rows) - 1)
    for y, row in enumerate(rows):
        bottom = image.shape[1] - (len(rows) - 1 - y) * step
        for x, place in enumerate(row["pictures"]):
            left = x * (width + sheet.GAP)
            shown = image[0, bottom - height : bottom, left : left + width]
            assert (np.round(shown.numpy() * 255) == saved[place]).all()
            one = told["pictures"][place]
            assert row["label"].startswith(f"seed {one['seed']},")
            if x == 0:
                assert one["settings"] is None
            else:
                assert one["settings"]["scale"] == 2
                assert row["label"].endswith(f"blocks {one['settings']['blocks']}")


def _top(image, height):
    """How high everything above the first picture is, worked out from where the rows begin."""
    found = [y for y in range(image.shape[1]) if (image[0, y, :, :] < 0.999).any()]
    return next(y for y in found if all(v in found for v in range(y, y + height)))


# --- what is kept ---


def test_what_was_drawn_before_an_interruption_is_not_drawn_again(inputs, base, sampled, interrupt_at):
    """The host's own interruption, as its button sets it, in the middle of the third picture."""
    shown = interrupt_at(5)
    with pytest.raises(INTERRUPTED):
        compared(inputs)
    assert len(sampled) == 3 and shown[-1] == (5, 6 * 2 + 6)
    shown.clear()
    _, pictures, told = compared(inputs)
    assert len(sampled) == 3 + 4, "two of six were whole"
    values = [value for value, _ in shown]
    assert values == sorted(values) and {total for _, total in shown} == {4 * 2 + 6} and values[-1] == 14
    assert [one["seed"] for one in told["pictures"]] == [7] * 3 + [8] * 3
    assert torch.equal(pictures, base[1]), "as if nothing had come in between"


def test_only_what_is_missing_is_drawn(inputs, monkeypatch):
    """Each beside what was drawn first; equal prompts and the like in other objects are others."""
    sampled = []

    def sample(model, noise, *args, seed, **keywords):
        sampled.append(seed)
        return noise

    monkeypatch.setattr(comfy.sample, "sample", sample)
    asked = [
        ({}, 6),
        ({}, 0),
        ({"axes": "blocks: 2; 1-3\nscale: 2, 5\nalpha: 0.5\nnegative_prompt: off", "seeds": 1}, 2),
        ({"seeds": 3}, 3),
        ({"seed": 8, "seeds": 1}, 0),
        ({"seeds": 1, "axes": "scale: 0"}, 0),
        *(({**one, "seeds": 1, "axes": "scale: 0"}, 1) for one in others_than(inputs)),
    ]
    for others, missing in asked:
        sampled.clear()
        compared(inputs, **others)
        assert len(sampled) == missing, others


def others_than(inputs):
    """What changes a picture, one at a time."""
    yield from ({"steps": 3}, {"sampler_name": "heun"}, {"scheduler": "beta"}, {"cfg": 1.5}, {"denoise": 0.9})
    yield from ({name: list(inputs[name])} for name in ("positive", "negative"))
    yield from ({"model": inputs["model"].clone()}, {"latent_image": dict(inputs["latent_image"])})


def test_off_is_the_models_own(flux, base):
    begun = base[-1]
    assert [seed for seed, _ in begun] == [7] * 3 + [8] * 3
    assert [model is flux for _, model in begun] == [True, False, False] * 2


class Model:
    """What can be referred to weakly, as a ModelPatcher can."""


def test_so_much_is_kept_and_no_more():
    """The one not used for longest goes first; what is drawn from a model that is gone goes with it."""
    one, other = ([kept.Source(Model(), [], [], {})] for _ in range(2))
    found = kept.Kept(most=3 * 400)
    for how in "abc":
        found.put(one[0], how, torch.full((100,), float(ord(how))))
    found.get(one[0], "a")
    found.put(other[0], "d", torch.zeros(100))
    assert [found.get(one[0], how) is not None for how in "abc"] == [True, False, True]
    assert found.get(other[0], "a") is None and found.get(other[0], "d") is not None and found.bytes == 1200
    assert int(found.get(one[0], "c")[0]) == ord("c")
    one.clear()
    found.put(other[0], "e", torch.zeros(100))
    assert found.bytes == 800
    found.put(other[0], "f", torch.zeros(301))
    assert found.bytes == 0, "what is too large alone is not kept"


def test_of_the_last_four_sources_only():
    """What conditioning holds may be large, and is let go."""
    model = Model()
    prompts = [[torch.zeros(1)] for _ in range(5)]
    gone = weakref.ref(prompts[1][0])
    found = kept.Kept()
    sources = [kept.Source(model, prompt, [], {}) for prompt in prompts]
    for source in sources[:4]:
        found.put(source, "a", torch.zeros(1))
    assert found.get(sources[0], "a") is not None
    found.put(sources[4], "a", torch.zeros(1))
    assert [found.get(source, "a") is not None for source in sources] == [True, False, True, True, True]
    del sources, source
    prompts.clear()
    assert gone() is None


def test_another_model_under_the_id_of_one_that_is_gone_has_drawn_nothing():
    found, models = kept.Kept(), [Model()]
    parts = ([], [], {})
    found.put(kept.Source(models[0], *parts), "a", torch.zeros(1))

    class SameIds(kept.Source):
        ids = kept.Source(models[0], *parts).ids

    models.clear()
    assert found.get(SameIds(Model(), *parts), "a") is None


# --- what is shown while it runs, what is refused ---


def test_previews_are_the_hosts(inputs, hear, monkeypatch):
    """One for each step, of the picture that is drawn just then; none for what is decoded."""
    from comfy.cli_args import LatentPreviewMethod, args

    previews = []
    hear(lambda value, total, preview, node_id=None: previews.append(preview))
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    compared(inputs, axes="scale: 0", seeds=1)
    assert [(kind, picture.size) for kind, picture, _ in previews[:2]] == [("JPEG", (4, 4))] * 2
    assert previews[2:] == [None]


def test_the_bar_ends_where_a_sampler_counts_further_than_it_was_asked_to(inputs, hear):
    values = []
    hear(lambda value, total, preview, node_id=None: values.append((value, total)))
    _, pictures, _ = compared(inputs, axes="scale: 0", seeds=1, sampler_name="dpm_adaptive")
    assert len(values) > 4 and values[-2:] == [(2, 3), (3, 3)] and sorted(values) == values
    assert torch.isfinite(pictures).all()


@pytest.mark.parametrize(
    "others, quoted",
    [
        ({"axes": "blocks: 1; 17"}, "block 17 does not exist: this model has double blocks 0 to 3"),
        ({"axes": "scale: 1, much"}, "scale 'much' is not a number"),
        ({"seeds": 128}, r"3 settings \(off counts\) with 128 seeds are 384 pictures; at most 128"),
        ({"model": "guided"}, "guided already"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_any_work(inputs, sampled, others, quoted):
    if others.get("model"):
        others = {"model": guided(inputs["model"])}
    with pytest.raises(ValueError, match=quoted):
        compared(inputs, **others)
    assert not sampled


def test_axes_are_looked_at_before_any_model_is_loaded():
    assert "'scael' is no input" in NAGPAGCompare.validate_inputs(axes="scael: 1")
    assert NAGPAGCompare.validate_inputs(axes=None) is True, "it comes over a link"
    assert NAGPAGCompare.validate_inputs(axes=COMPARE.defaults["axes"]) is True


def test_a_large_sheet_is_scaled_down_and_a_long_label_cut(monkeypatch):
    pictures = torch.rand(2, 40, 80, 3)
    monkeypatch.setattr(sheet, "MOST_PIXELS", 2 * 20 * 40)
    image = sheet.draw_sheet(pictures, "a title of many words " * 20, ["x" * 10_000, "b"], [("y" * 10_000, [0, 1])])
    assert image.shape[2] == 2 * 40 + sheet.GAP and float(image.max()) <= 1
    mean = pictures[1].mean(dim=(0, 1))
    assert torch.allclose(image[0, -20:, -40:].mean(dim=(0, 1)), mean, atol=0.02)


def test_a_batch_of_shots_knows_its_seeds():
    assert [shot.seed for shot in drawing.shots([None], 2**64 - 1, 2, 1)] == [2**64 - 1, 0]


def test_a_latent_of_several_parts_is_refused_before_anything_is_drawn(inputs, monkeypatch):
    begun, parts = recorded(monkeypatch), NestedTensor([torch.zeros(1, 16, 4, 4), torch.zeros(1, 8, 5, 6)])
    with pytest.raises(ValueError, match=r"NAG-PAG Compare: .*\(1, 16, 4, 4\), \(1, 8, 5, 6\)"):
        compared(inputs, latent_image={"samples": parts})
    calibrated = {name: inputs[name] for name in ("model", "positive", "vae")}
    with pytest.raises(ValueError, match="NAG-PAG Calibrate: the latent holds several at once"):
        NAGPAGCalibrate.execute(**calibrated, empty=prompt(2), latent_image={"samples": parts})
    assert begun == []

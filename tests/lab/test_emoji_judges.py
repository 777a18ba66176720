"""The judges of emoji, on stand-ins for the vendors' drawings: what they learn, what the fit finds, what is right."""

from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch
from drawn_emoji import stand_ins
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.lab.evidence import emoji_check, emoji_cnn, emoji_judges, emoji_lessons, emoji_templates
from nag_pag_flux.lab.evidence.emoji_lessons import BROKEN, NOT_ASKED, SIDE
from nag_pag_flux.lab.toy import emoji

SEED = 2_900  # of scenes that nothing was trained on or calibrated with
PARTS = tuple(emoji.PARTS)


@pytest.fixture(scope="module", autouse=True)
def drawn():
    drawings = stand_ins()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji, "drawings", lambda: drawings)
        emoji_templates._drawn.cache_clear()
        yield
    emoji_templates._drawn.cache_clear()


@pytest.fixture(scope="module")
def scenes(drawn):
    return emoji.random_scenes(24, torch.Generator().manual_seed(SEED), new=True, left_out=0)


@pytest.fixture(scope="module")
def spoilt(scenes):
    return emoji_check.spoilt(scenes)


@pytest.fixture(scope="module")
def fits(spoilt):
    return {name: emoji_templates.fit(pictures) for name, pictures in spoilt.items()}


def truth(scenes):
    return {part: torch.tensor([getattr(scene, part) for scene in scenes]) for part in PARTS}


def share_right(fit, scenes):
    seen = emoji_judges._seen_by_templates(fit)
    return float(emoji_judges.right(seen, scenes).float().mean())


# --- the fit ---


def test_the_fit_finds_every_part_of_a_real_render(fits, scenes):
    fit = fits["as it is"]
    for part, asked in truth(scenes).items():
        assert torch.equal(getattr(fit, part), asked), part
    assert fit.whole.float().mean() > 0.97 and fit.share.max() <= 1


@pytest.mark.parametrize("kind", ["noise of 0.02", "a slight blur"])
def test_what_an_eye_forgives_is_still_right(fits, scenes, kind):
    assert share_right(fits[kind], scenes) > 0.9


@pytest.mark.parametrize(
    "kind",
    [
        "noise of 0.4",
        "means of 5 × 5, twice",
        "bent by 2.0 small pixels",
        "50 % of another concept",
        "half another concept",
        "half missing",
        "another concept",
        "another vendor",
        "nothing",
    ],
)
def test_what_is_broken_or_another_is_wrong(fits, scenes, kind):
    assert share_right(fits[kind], scenes) < 0.05


@pytest.mark.parametrize("part", PARTS)
def test_another_caption_is_wrong_and_one_that_leaves_it_open_is_right(fits, scenes, part):
    changed = emoji_check.with_another(scenes, part)
    assert share_right(fits["as it is"], changed) == 0
    open_ = [replace(scene, told=tuple(other for other in PARTS if other != part)) for scene in changed]
    same_kind = [emoji.KIND_OF[a.concept] == emoji.KIND_OF[b.concept] for a, b in zip(open_, scenes, strict=True)]
    rows = [row for row, same in enumerate(same_kind) if same or part != "concept"]
    right = emoji_judges.right(emoji_judges._seen_by_templates(fits["as it is"]), open_)
    assert rows and right[rows].float().mean() > 0.97
    if part == "concept":
        assert not right[[row for row in range(len(scenes)) if row not in rows]].any()


def test_the_share_is_what_plain_sums_say(scenes):
    """One drawing on one window of one noisy picture, by numpy, from a picture composed anew."""
    size, concept, vendor, ground = 1, 3, 2, np.array([0.3, 0.5, 0.6])
    side = emoji_templates._middle_side(size)
    centre = emoji_templates._centres(size)[:1]
    scene = emoji.Scene(concept, vendor, 0, size, 0, *(4 * centre[0]).tolist(), 4 * side)
    layers = torch.nn.functional.avg_pool2d(emoji.render_layers([scene]), 4)
    drawing = layers[:, :3] - layers[:, 3:] * torch.tensor(ground, dtype=torch.float)[None, :, None, None]
    noisy = drawing + 0.2 * torch.randn(drawing.shape, generator=torch.Generator().manual_seed(1))
    found = emoji_templates._by_window(
        noisy, torch.tensor(ground, dtype=torch.float)[None], centre[None], size, 1.0, True
    )[0, 0, concept * len(emoji.VENDORS) + vendor]

    def features(picture):
        window = emoji_templates.windows(picture, centre[None], side)[0, 0].double().numpy()
        return [window, np.diff(window, axis=2), np.diff(window, axis=1)]

    seen, wanted = features(noisy), features(drawing)
    outside = float(noisy.double().square().sum()) * (emoji_templates.WINDOW / side) ** 2 - (seen[0] ** 2).sum()
    whole = sum((part**2).sum() for part in seen) + max(outside, 0)
    rest = sum(((one - other) ** 2).sum() for one, other in zip(seen, wanted, strict=True)) + max(outside, 0)
    assert float(found) == pytest.approx(1 - rest / whole, abs=1e-4)


def test_a_window_at_its_own_size_is_the_picture_itself():
    pictures = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    (window,) = emoji_templates.windows(pictures, torch.tensor([[[9.0, 11.0]]]), float(emoji_templates.WINDOW))[0]
    torch.testing.assert_close(window, pictures[0, :, 3:19, 1:17])


# --- lessons ---


@pytest.fixture(scope="module")
def lessons():
    return emoji_lessons.Lessons.of(160, SEED)


def test_a_lesson_asks_of_each_part_only_what_there_is(lessons):
    pictures, asked = lessons.batch(400)
    assert pictures.shape == (400, 3, SIDE, SIDE) and pictures.min() >= 0 and pictures.max() <= 1
    assert set(asked) == set(PARTS)
    for part, values in asked.items():
        known = values[values != NOT_ASKED]
        assert known.min() >= 0 and known.max() <= (BROKEN if part == "concept" else len(emoji.PARTS[part]) - 1)
    shares = [float((asked["concept"] == kind).float().mean()) for kind in (BROKEN, NOT_ASKED)]
    assert 0.25 < shares[0] < 0.5 and shares[1] < 0.25
    not_whole = (asked["concept"] == BROKEN) | (asked["concept"] == NOT_ASKED)
    assert torch.equal(asked["vendor"] == NOT_ASKED, not_whole)


def test_two_that_are_mixed_lie_in_the_same_place_and_size(lessons):
    rows, others = lessons.pairs(100)
    for part in ("place", "size"):
        assert torch.equal(lessons.parts[part][rows], lessons.parts[part][others])
    assert not torch.equal(rows, others)


def test_the_rows_of_each_place_and_size_are_known_even_where_there_are_none():
    few = emoji_lessons.Lessons.of(3, SEED)
    assert len(few.cells) == 8 and sorted(torch.cat(few.cells).tolist()) == list(range(len(few.layers)))
    rows, others = few.pairs(20)
    assert torch.equal(few.parts["place"][rows], few.parts["place"][others])


@given(st.floats(0, 1))
def test_what_is_kept_of_a_mixture_is_known_in_closed_form(share):
    """(1 − s)² |a − b|² of |a|² is lost where s a + (1 − s) b stands for a."""
    generator = torch.Generator().manual_seed(3)
    one, other = torch.rand(2, 1, 3, 8, 8, generator=generator)
    ground = torch.tensor([[0.2, 0.4, 0.6]])
    lost = (1 - share) ** 2 * (one - other).square().sum() / (one - ground[..., None, None]).square().sum()
    found = emoji_lessons.kept(share * one + (1 - share) * other, one, ground)
    assert float(found) == pytest.approx(1 - float(lost), abs=1e-4)


def test_a_half_plane_cuts_near_the_middle_of_the_emoji(lessons):
    layers = lessons.layers[:64].float()
    half = lessons.half(layers)
    covered = (layers[:, 3:] * half).sum((1, 2, 3)) / layers[:, 3:].sum((1, 2, 3))
    assert 0.3 < covered.mean() < 0.7 and ((covered > 0.05) & (covered < 0.95)).float().mean() > 0.7


def test_a_stretched_emoji_stays_where_it_was(lessons):
    layers = lessons.layers[:64].float()
    moved = emoji_lessons._middles(lessons.stretch(layers)) - emoji_lessons._middles(layers)
    assert moved.abs().max() * SIDE / 2 < 2


# --- the CNN ---


SHORT = emoji_cnn.Recipe(scenes=32, steps=2, batch=24)


def test_training_gives_the_same_weights_each_time():
    first, again, other = (emoji_cnn.train(recipe).state_dict() for recipe in (SHORT, SHORT, replace(SHORT, seed=7)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["heads.concept.weight"], other["heads.concept.weight"])
    assert emoji_cnn.recipe_digest(SHORT) != emoji_cnn.recipe_digest()


def test_training_leaves_the_callers_randomness_and_threads_alone():
    torch.manual_seed(11)
    expected, threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(11)
    emoji_cnn.train(replace(SHORT, steps=1))
    assert torch.equal(torch.rand(2), expected) and torch.get_num_threads() == threads


@pytest.fixture
def short_cnn(tmp_path, monkeypatch):
    """A judge of three steps, as it is kept: it knows nothing, but all runs as with a good one."""
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path))
    train = emoji_cnn.train
    monkeypatch.setattr(emoji_cnn, "train", wraps(train)(lambda: train(SHORT)))
    emoji_cnn.load.cache_clear()
    emoji_judges._reference.cache_clear()
    yield emoji_cnn.load()
    emoji_cnn.load.cache_clear()
    emoji_judges._reference.cache_clear()


def test_it_is_trained_once_and_kept(short_cnn, monkeypatch):
    monkeypatch.setattr(emoji_cnn, "train", wraps(emoji_cnn.train)(lambda: pytest.fail("trained again")))
    emoji_cnn.load.cache_clear()
    state, again = short_cnn.state_dict(), emoji_cnn.load().state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_scores_of_a_batch_are_of_its_pictures(short_cnn, scenes, spoilt):
    pictures = spoilt["as it is"]
    scores = emoji_judges.score(pictures, scenes)
    assert scores.features.shape == (len(scenes), emoji_cnn.FEATURES) and scores.objects.tolist() == [1] * len(scenes)
    assert scores.template_right.float().mean() > 0.97 and scores.template_fit.min() > 0.4
    one = emoji_judges.score(pictures[5:6], scenes[5:6])
    for name, values in vars(scores).items():
        torch.testing.assert_close(getattr(one, name), values[5:6], atol=1e-4, rtol=1e-3)
    assert scores.cnn_right.max() <= 1 and set(emoji_judges.read(pictures[:4])) == {"cnn", "template"}


def test_bad_pictures_are_refused(scenes, spoilt):
    pictures = spoilt["as it is"][:3].clone()
    with pytest.raises(ValueError, match=r"\(2, 3, 32, 32\); 3 scenes"):
        emoji_judges.score(pictures[:2], scenes[:3])
    pictures[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 of 3 pictures"):
        emoji_judges.score(pictures, scenes[:3])


def test_what_is_real_is_kept(short_cnn, monkeypatch):
    monkeypatch.setattr(emoji_judges, "REFERENCE_COUNT", 70)
    mean, covariance = emoji_judges.real_reference()
    assert mean.shape == (64,) and covariance.shape == (64, 64) and mean.dtype == torch.float64
    monkeypatch.setattr(emoji_judges, "_make_reference", lambda: pytest.fail("made again"))
    emoji_judges._reference.cache_clear()
    assert 0 <= emoji_judges.held_out_accuracy() <= 1
    assert len(emoji_judges.real_scores(3).objects) == 3


# --- what is right ---


def test_one_wrong_part_is_enough_and_a_broken_one_is_never_right():
    asked = emoji.random_scenes(4, torch.Generator().manual_seed(1), left_out=0)
    seen = truth(asked)
    assert emoji_judges.right(seen, asked).all()
    for row, part in enumerate(("vendor", "place", "size", "ground")):
        seen[part][row] = (seen[part][row] + 1) % len(emoji.PARTS[part])
        assert not emoji_judges.right(seen, asked)[row]
    broken = truth(asked) | {"concept": torch.full((4,), BROKEN)}
    assert not emoji_judges.right(broken, [replace(scene, told=()) for scene in asked]).any()


# --- the check by eye ---


def test_the_sheet_shows_each_kind_with_what_is_said(short_cnn, scenes, spoilt, capsys):
    found = {name: spoilt[name][:16] for name in ("as it is", "nothing")}
    image = emoji_check.sheet(found, scenes[:16], emoji_check.in_words)
    assert image.size == (emoji_check.SHOWN * (3 * SIDE + 8), 2 * (3 * SIDE + 40))
    first = torch.tensor(image.getpixel((1, 14))) / 255
    assert (first - spoilt["as it is"][0, :, 0, 0]).abs().max() < 0.01
    lines = emoji_check.shares(found, scenes[:16])
    assert len(lines) == 3 and lines[1].split()[-1] in ("0.94", "1.00") and lines[2].split()[-1] == "0.00"
    said = emoji_check.in_words(spoilt["as it is"][:1])[0].splitlines()[1]
    assert said == f"{emoji.CONCEPTS[scenes[0].concept]}, {emoji.VENDORS[scenes[0].vendor]}"

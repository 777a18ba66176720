"""The evidence: its arithmetic against ways worked out by hand, and a quick form of it on the shipped model."""

import dataclasses
import math
import re

import pytest
import torch
from nag_pag_flux.lab.evidence import (
    choosing,
    contenders,
    gains,
    halving,
    page,
    plots,
    recovery,
    report,
    results,
    rounds,
    runs,
    sampling,
)
from nag_pag_flux.lab.evidence.runs import CHOOSING, REPORTING, Subject
from nag_pag_flux.nagpag import blocks as blocks_module
from nag_pag_flux.nagpag.measure import Measured

# --- arithmetic ---


def test_a_gain_is_the_change_of_the_share_with_the_error_of_paired_prompts():
    generator = torch.Generator().manual_seed(1)
    plain = torch.randint(0, 3, (4_096,), generator=generator).float()
    change = torch.randint(-1, 2, (4_096,), generator=generator).float()
    gain = gains.ratio_gain(plain + change, plain, torch.full_like(plain, 2), group=1)
    assert gain.value == pytest.approx(float(change.mean()) / 2, abs=1e-9)
    assert gain.error == pytest.approx(float(change.std()) / 2 / math.sqrt(4_096), rel=0.1)


def test_pictures_of_one_prompt_are_resampled_together():
    change = torch.randn(256, generator=torch.Generator().manual_seed(2)).repeat_interleave(4)
    nothing, one = torch.zeros_like(change), torch.ones_like(change)
    together, alone = (gains.ratio_gain(change, nothing, one, group).error for group in (4, 1))
    assert together / alone == pytest.approx(2, rel=0.15)


def test_the_search_finds_the_best_and_looks_longest_at_it():
    asked = []

    def gains(candidates, count):
        asked.append((count, len(candidates)))
        noise = torch.randn(len(candidates), generator=torch.Generator().manual_seed(count)) / math.sqrt(count)
        return [Measured(-abs(c - 7) / 10 + float(n) / 10, 0.1) for c, n in zip(candidates, noise, strict=True)]

    ranked = halving.search(list(range(12)), gains, counts=(100, 400, 1_600))
    assert ranked[0][0] == 7
    assert asked == [(100, 12), (400, 4), (1_600, 1)]
    assert sorted(candidate for candidate, _ in ranked) == list(range(12))


@pytest.mark.parametrize(
    "candidates, counts, keep, quoted",
    [([], (1,), 0.5, "0 candidates"), ([1], (), 0.5, "()"), ([1], (1,), 0, "keep 0")],
)
def test_a_search_that_can_find_nothing_says_what_it_lacks(candidates, counts, keep, quoted):
    with pytest.raises(ValueError, match="search needs") as error:
        halving.search(candidates, lambda c, n: [], counts, keep)
    assert quoted in str(error.value)


@pytest.mark.parametrize(
    "inputs, passes",
    [
        ({"blocks": "2", "reach": "attention"}, 1.0),
        # FLUX.1: 19 double blocks of weight 170 and 38 single ones of 141, 8 of 8 and 4 of 4 here.
        ({"blocks": "0", "reach": "output", "renew_every": 1}, 2.0),
        ({"blocks": "4", "reach": "double blocks", "renew_every": 1}, 1 + 3230 / 8588 / 2),
        ({"blocks": "4", "reach": "double blocks", "renew_every": 5}, 1 + 3230 / 8588 / 2 * 3 / 12),
        ({"blocks": "7", "reach": "output", "renew_every": 4}, 1 + (3230 / 8 + 5358) / 8588 / 4),
        ({"blocks": "2", "reach_blocks": 1, "renew_every": 1}, 1 + 3230 / 8588 / 4),
    ],
)
def test_passes_are_counted_at_the_proportions_of_flux_1(inputs, passes):
    assert contenders.nagpag(**inputs).passes == pytest.approx(passes)


def test_kept_pictures_are_named_by_the_blocks_that_auto_means():
    """The trained models have 8 double blocks; should `auto` change, no old picture stands for a new one."""
    assert contenders.nagpag().key == contenders.nagpag(blocks="3, 4, 5, 6, 7").key
    assert "auto" not in contenders.nagpag().key


def test_pictures_of_another_code_are_other_files_and_those_without_guidance_are_not(monkeypatch):
    def files():
        found = runs.parts([Subject(0)], [contenders.nagpag(), contenders.plain()], CHOOSING, runs.PART_SIZE)
        return [part.file for part in found]

    guided, plain = files()
    monkeypatch.setattr(runs, "code_digest", lambda: "another")
    assert guided != files()[0] and plain == files()[1]


def test_pictures_are_kept_under_the_names_that_they_were_made_under():
    """Hours of sampling lie under these; what a class or a field is called here is no part of them."""
    found = runs.parts([Subject(0)], [contenders.plain(), contenders.nagpag()], CHOOSING, runs.PART_SIZE)
    names = [part.file.name for part in found]
    assert names == ["74bc52288b60df06d65d-0.safetensors", "06e06270c43644add149-0.safetensors"]


def test_sets_of_prompts_and_noise_have_nothing_in_common():
    chosen, reported = CHOOSING.rows(0), REPORTING.rows(0)
    assert not set(chosen[1]) & set(reported[1]) and chosen[0] != reported[0]
    assert len({scene.caption for scene in chosen[0]}) >= runs.PART_SIZE / runs.NOISES * 0.9
    assert CHOOSING.rows(1)[1][0] == chosen[1][-1] + 1


# --- through the host ---


@pytest.fixture(scope="module")
def model():
    return sampling.load(runs.SHIPPED)


def pictures(model, contender, count=4):
    scenes, seeds = REPORTING.rows(0)
    return sampling.sample(contender.patch(model), scenes[:count], seeds[:count], contender.cfg, steps=4)


def test_a_picture_does_not_depend_on_its_batch(model):
    whole, part = pictures(model, contenders.plain(), 4), pictures(model, contenders.plain(), 2)
    torch.testing.assert_close(whole[:2], part, atol=0.05, rtol=0)  # bfloat16


def test_cfg_with_a_difference_of_every_step_is_cfg(model):
    cfg, reused = (pictures(model, c) for c in (contenders.cfg(2.0), contenders.cfg_reused(2.0, every=1)))
    torch.testing.assert_close(reused, cfg, atol=0.02, rtol=0)
    stale = pictures(model, contenders.cfg_reused(2.0, every=4))
    assert (stale - cfg).abs().max() > 0.05


# --- the quick form ---

COUNT = runs.PART_SIZE
COUNTS = results.Counts(COUNT, COUNT)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The shipped model, alone and under the published form, sampled by the code as it is now and judged."""
    with pytest.MonkeyPatch.context() as patch:
        pictures = tmp_path_factory.mktemp("pictures")
        patch.setattr(runs, "folder", lambda: pictures)
        runs.scores.cache_clear()
        yield from _quick()
        runs.scores.cache_clear()


def _quick():
    compared = [contenders.nagpag("as published", **report.AS_PUBLISHED)]
    wanted = runs.parts([Subject(0)], [contenders.plain(), *compared], REPORTING, COUNT)
    runs.make_pictures(wanted)
    yield compared


def gathered(contenders, *others):
    return results.gather([], [Subject(0)], [], contenders, [*others], COUNTS)


def test_the_shipped_model_draws_what_it_is_asked_for_but_not_always(quick):
    scores = runs.scores(Subject(0), contenders.plain(), REPORTING, COUNT)
    for right in (scores.cnn_right, scores.template_right):
        assert 0.7 < float(right.sum() / scores.objects.sum()) < 0.97


def test_the_published_form_harms_it_by_both_judges(quick):
    for judge in ("cnn", "template"):
        assert gains.gain([Subject(0)], quick[0], REPORTING, COUNT, judge).harms


def test_the_page_has_a_line_for_each_contender_and_each_model(quick):
    text = page.page(gathered(quick))
    (row,) = (line for line in text.splitlines() if line.startswith("| as published | 1.00 | 128 |"))
    assert "| harms | 0 of 1 | 1 of 1 | – |" in row  # there is no model that settings were chosen on
    assert "| seed 0 |" in text and "| real renders |" in text


def test_a_round_without_pictures_is_a_table_of_dashes(quick):
    asked = rounds.ROUNDS["neighbours"]
    rows = choosing.table(asked).splitlines()[2:]
    assert len(rows) == len(asked.contenders()) and all(row.count("| – ") == 6 for row in rows)


def test_the_search_among_contenders_makes_what_it_asks_for(monkeypatch):
    """On pictures that are not made: by a judge that likes a higher alpha."""
    made = []
    monkeypatch.setattr(halving, "make", lambda subjects, contenders, count: made.append((count, len(contenders))))
    monkeypatch.setattr(gains, "gain", lambda subjects, c, prompts, count: Measured(c.settings["alpha"], 0.01))
    found = halving.find([contenders.nagpag(alpha=alpha / 10) for alpha in range(1, 9)], [Subject(0)])
    assert made == [(128, 8), (256, 2)]
    assert [contender.settings["alpha"] for contender, _ in found][:3] == [0.8, 0.7, 0.6]


def test_each_model_may_have_settings_of_its_own(quick, monkeypatch):
    """On pictures that are not made: seed 0 likes few blocks, the other many."""

    def gain(subjects, contender, prompts, count, judge="both"):
        blocks = len(blocks_module.parse_blocks(contender.settings["blocks"], 8, 4))
        return Measured(-blocks if subjects == [Subject(0)] else blocks, 0.01)

    assert halving.own_if_made(Subject(0)) is None
    found = results.gather([], [Subject(0)], [], [contenders.nagpag()], [], COUNTS)
    assert "| seed 0 | – | – | – |" in page._own(found)
    monkeypatch.setattr(gains, "gain", gain)
    monkeypatch.setattr(gains, "was_made", lambda *whatever: True)
    few, many = (halving.own_if_made(Subject(seed)) for seed in (0, 1))
    assert few.settings["blocks"] == "7" and many.settings["blocks"] == "all"
    monkeypatch.setattr(recovery, "own_if_made", lambda subject: many)
    row = f"| seed 0 | -1.000 ± 0.010 ({few.name}) | -8.000 ± 0.010 ({many.name}) | -5.000 ± 0.010 |"
    assert row in page._own(found)


def test_what_was_not_made_is_named_not_guessed(quick):
    text = page.page(gathered(quick, contenders.cfg(7.0)))
    assert "Not measured yet: CFG 7." in text and "| CFG 7 |" not in text


def test_every_plot_of_the_page_is_drawn(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "FOLDER", tmp_path)
    monkeypatch.setattr(rounds.Round, "made", lambda self: True)
    monkeypatch.setattr(plots, "_gain", lambda subjects, contender: Measured(0.1, 0.01))
    monkeypatch.setattr(plots, "clamped_share", lambda subject, contender: 0.5)
    plots.draw(gathered(quick, contenders.cfg(7.0)))
    text = page.page(gathered(quick))
    assert {path.name for path in tmp_path.iterdir()} == set(re.findall(r"\(evidence/(\w+\.png)\)", text))


def test_the_share_of_tokens_at_the_limit():
    def share(**inputs):
        return plots.clamped_share(Subject(0), contenders.nagpag(**inputs), pictures=2)

    assert share(scale=0.1, tau=10.0) == 0 and share(scale=10.0, tau=1.0, perturbation=1.0) > 0.9


def test_the_plots_are_of_the_defaults():
    assert rounds._branch(**rounds._CHOSEN).key == contenders.nagpag(blocks="3-7").key
    assert contenders.nagpag().key == contenders.nagpag(blocks="3, 4, 5, 6, 7").key


@pytest.mark.parametrize("arguments", [["100"], ["2048"], ["abc"], ["0"], ["128", "256"]])
def test_a_count_that_can_not_be_is_refused_before_any_work(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        report.main(arguments)
    assert stopped.value.code == 2 and arguments[-1] in capsys.readouterr().err


def test_pictures_are_made_once(quick):
    (part, *_) = runs.parts([Subject(0)], quick, REPORTING, COUNT)
    before = part.file.stat().st_mtime_ns
    runs.make_pictures([part])
    assert part.file.stat().st_mtime_ns == before
    other = dataclasses.replace(part, contender=contenders.plain())
    assert other.file != part.file

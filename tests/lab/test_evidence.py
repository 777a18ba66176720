"""The evidence: its arithmetic against ways worked out by hand, and a quick form of it on the shipped model."""

import dataclasses
import math
import re

import by_hand
import pytest
import torch
from nag_pag_flux.lab.evidence import (
    choosing,
    contenders,
    few_steps,
    gains,
    page,
    plots,
    report,
    results,
    rounds,
    runs,
)
from nag_pag_flux.lab.evidence.runs import CHOOSING, REPORTING
from nag_pag_flux.lab.evidence.subjects import Subject
from nag_pag_flux.nagpag.inputs.calibration import ALPHAS

SHIPPED = Subject("shipped")

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


@pytest.mark.parametrize(
    "inputs, passes",
    [
        ({"blocks": "1", "reach": "attention"}, 1.0),
        # FLUX.1: 19 double blocks of weight 170 and 38 single ones of 141, 2 of 2 and 4 of 4 here.
        ({"blocks": "0", "reach": "output", "renew_every": 1}, 2.0),
        ({"blocks": "1", "reach": "double blocks", "renew_every": 1}, 1 + 3230 / 8588 / 2),
        ({"blocks": "1", "reach": "double blocks", "renew_every": 5}, 1 + 3230 / 8588 / 2 * 3 / 12),
        ({"blocks": "s1", "reach": "output", "renew_every": 4}, 1 + 5358 * 3 / 4 / 8588 / 4),
        ({"blocks": "0", "reach_blocks": 1, "renew_every": 1}, 1 + 3230 / 8588),
        ({"reach": "double blocks", "negative_prompt": "sampler's", "renew_every": 4}, 1 + 3230 / 8588 / 4),
        ({"negative_prompt": "sampler's", "start_percent": 0.45, "renew_every": 6}, 1 + 1 / 12),
    ],
)
def test_passes_are_counted_at_the_proportions_of_flux_1(inputs, passes):
    base = {"negative_prompt": "off", "start_percent": 0.0}
    assert contenders.nagpag(**base | inputs).passes == pytest.approx(passes)


def test_the_defaults_cost_a_tenth_of_a_pass():
    assert contenders.nagpag(steps=runs.REPORTED).passes == pytest.approx(1.1)
    assert contenders.cfg_reused(2.0, 6, runs.REPORTED, start=0.45).passes == pytest.approx(1.1)


def test_kept_pictures_are_named_by_the_blocks_that_auto_means():
    """Should `auto` change, no old picture stands for a new one."""
    assert contenders.nagpag(depths=(8, 4)).key == contenders.nagpag(blocks="3, 4, 5, 6, 7", depths=(8, 4)).key
    assert "auto" not in contenders.nagpag().key


def test_pictures_of_another_code_are_other_files_and_those_without_guidance_are_not(monkeypatch):
    def files():
        found = runs.parts([SHIPPED], [contenders.nagpag(), contenders.plain()], CHOOSING, runs.PART_SIZE)
        return [part.file for part in found]

    guided, plain = files()
    monkeypatch.setattr(runs, "code_digest", lambda: "another")
    assert guided != files()[0] and plain == files()[1]


def test_sets_of_prompts_and_noise_have_nothing_in_common():
    chosen, reported = CHOOSING.rows(0), REPORTING.rows(0)
    assert not set(chosen[1]) & set(reported[1]) and chosen[0] != reported[0]
    assert len({question.prompt for question in chosen[0]}) >= runs.PART_SIZE / runs.NOISES * 0.9
    assert CHOOSING.rows(1)[1][0] == chosen[1][-1] + 1


# --- through the host ---


@pytest.fixture(scope="module")
def model():
    return SHIPPED.load()


def pictures(model, contender, count=4):
    return by_hand.sampled(contender.patch(model), count, 4, contender)


def test_a_picture_does_not_depend_on_its_batch(model):
    whole, part = pictures(model, contenders.plain(), 4), pictures(model, contenders.plain(), 2)
    torch.testing.assert_close(whole[:2], part, atol=0.05, rtol=0)  # bfloat16


def test_cfg_with_a_difference_of_every_step_is_cfg(model):
    cfg, reused = (pictures(model, c) for c in (contenders.cfg(2.0), contenders.cfg_reused(2.0, every=1)))
    torch.testing.assert_close(reused, cfg, atol=0.02, rtol=0)
    plain, never = (pictures(model, c) for c in (contenders.plain(), contenders.cfg_reused(2.0, 1, 4, start=1.0)))
    torch.testing.assert_close(never, plain, atol=0.02, rtol=0)
    stale = pictures(model, contenders.cfg_reused(2.0, every=4))
    assert (stale - cfg).abs().max() > 0.05


# --- the quick form ---

COUNT, FEW = 32, 8  # pictures; steps, in place of those of the evidence


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The shipped model, alone and under the published form, sampled by the code as it is now and judged."""
    with pytest.MonkeyPatch.context() as patch:
        pictures = tmp_path_factory.mktemp("pictures")
        patch.setattr(runs, "pictures_folder", lambda: pictures)
        patch.setattr(runs, "PART_SIZE", COUNT)
        sample = runs.sampling.sample
        patch.setattr(runs.sampling, "sample", lambda *given: sample(*given[:-1], FEW))
        runs.scores.cache_clear()
        yield from _quick()
        runs.scores.cache_clear()


def _quick():
    compared = [contenders.nagpag("as published", depths=(8, 4), **{**report.AS_PUBLISHED, "blocks": "3, 5, 6"})]
    wanted = runs.parts([SHIPPED], [contenders.plain(), *compared], REPORTING, COUNT)
    runs.make_pictures(wanted)
    yield compared


def gathered(contenders, *others):
    return [results.gather(results.Group("The shipped model", (SHIPPED,)), [*contenders, *others], (COUNT,))]


def test_the_shipped_model_draws_what_it_is_asked_for_but_not_always(quick):
    scores = runs.scores(SHIPPED, contenders.plain(), REPORTING, COUNT)
    for right in (scores.cnn_right, scores.template_right):
        assert 0.7 < float(right.sum() / scores.objects.sum()) < 0.97


def test_the_published_form_harms_it_by_both_judges(quick):
    for judge in ("cnn", "template"):
        assert gains.gain([SHIPPED], quick[0], REPORTING, COUNT, judge).harms


def test_the_page_has_a_line_for_each_contender_and_each_model(quick):
    text = page.page(gathered(quick), [Subject("77")])
    (row,) = (line for line in text.splitlines() if line.startswith(f"| as published | 1.00 | {COUNT} |"))
    assert "| harms | 0 of 1 | 1 of 1 |" in row
    assert "Not trained yet: seed 77." in text and "| the shipped model |" in text and "| real renders |" in text
    assert "### Is a negative prompt obeyed? (the shipped model)\nNot measured yet." in text
    assert "### In few steps (the shipped model)\nNot measured yet." in text


def test_few_steps_have_a_row_for_each_contender_that_was_made(quick, monkeypatch):
    (compared,) = quick
    monkeypatch.setattr(few_steps, "contenders", lambda steps: [compared, contenders.cfg(7.0)])
    monkeypatch.setattr(few_steps, "prompts", lambda steps: REPORTING)
    monkeypatch.setattr(few_steps, "COUNT", COUNT)
    assert len(few_steps.parts([SHIPPED])) == 2 * 3
    rows = [line.strip("| ").split(" | ") for line in few_steps.table([SHIPPED]).splitlines()[2:]]
    gain = str(gains.gain([SHIPPED], compared, REPORTING, COUNT))
    assert [(row[0], row[1], row[-1]) for row in rows] == [("as published", steps, gain) for steps in ("4", "8")]


def test_calibrates_round_asks_what_calibrate_asks():
    """Alphas alone: with a negative prompt blocks do nothing at the prediction."""
    tried = [contender.settings for contender in rounds.calibrate_round()]
    assert [settings["alpha"] for settings in tried] == [float(word) for word in ALPHAS.default.split(",")]
    assert {(settings["reach"], settings["negative_prompt"]) for settings in tried} == {("prediction", "sampler's")}


def test_a_round_without_pictures_is_a_table_of_dashes(quick):
    asked = dataclasses.replace(rounds.ROUNDS["reach"], names=("shipped",))
    rows = choosing.table(asked).splitlines()[2:]
    assert len(rows) == len(asked.contenders()) and all(row.count("| – ") == 1 + 2 for row in rows)
    assert not asked.measured and not dataclasses.replace(asked, names=("77",)).measured


@pytest.mark.parametrize("name", rounds.ROUNDS)
def test_every_round_asks_each_contender_once_and_can_be_asked(name):
    found = rounds.ROUNDS[name].contenders()
    assert len({contender.key for contender in found}) == len(found) == len({contender.name for contender in found})
    assert all(1 <= contender.passes <= 2.5 for contender in found)


def test_a_round_that_is_none_and_models_that_are_not_there_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path))
    for arguments, said in ((["reach", "peer"], "'peer'"), (["reach"], "none of the models 0, 1, 2 is trained yet")):
        with pytest.raises(SystemExit):
            choosing.main(arguments)
        assert said in capsys.readouterr().err


def test_what_was_not_made_is_named_not_guessed(quick):
    text = page.page(gathered(quick, contenders.cfg(7.0)), [])
    assert "Not measured yet: CFG 7." in text and "| CFG 7 |" not in text


def test_every_plot_of_the_page_is_drawn(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "FOLDER", tmp_path)
    plots.draw(gathered(quick, contenders.cfg(7.0)))
    text = page.page(gathered(quick), [Subject("77")])
    assert {path.name for path in tmp_path.iterdir()} == set(re.findall(r"\(evidence/(\w+\.png)\)", text))


@pytest.mark.parametrize("arguments", [["100"], ["2048"], ["abc"], ["0"], ["128", "256"]])
def test_a_count_that_can_not_be_is_refused_before_any_work(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        report.main(arguments)
    assert stopped.value.code == 2 and arguments[-1] in capsys.readouterr().err


def test_pictures_are_made_once(quick):
    (part, *_) = runs.parts([SHIPPED], quick, REPORTING, COUNT)
    before = part.file.stat().st_mtime_ns
    runs.make_pictures([part])
    assert part.file.stat().st_mtime_ns == before
    other = dataclasses.replace(part, contender=contenders.plain())
    assert other.file != part.file

"""Calibration's command: its settings, its signals through the host on the shipped model, its page."""

import pytest
import torch
from nag_pag_flux.lab.evidence import (
    alignment,
    calibration,
    calibration_page,
    calibration_plots,
    judges,
    recovery,
    recovery_page,
    rounds,
    runs,
)
from nag_pag_flux.lab.evidence.alignment import CFG, SIGNALS, Rig, Setting
from nag_pag_flux.lab.evidence.contenders import plain
from nag_pag_flux.nagpag.calibration.recovery import recovered
from nag_pag_flux.nagpag.measure import Measured


def test_what_is_measured_is_what_was_judged():
    judged = [setting.judged.key for setting in alignment.settings() if setting != CFG]
    assert judged == [contender.key for contender in rounds.blocks_round()]


@pytest.mark.parametrize("word, said", [("x", "'x' is not a model"), ("99", "seed 99 is not trained yet")])
def test_a_model_that_is_not_there_is_named(word, said):
    with pytest.raises(SystemExit, match=said):
        calibration.main([word])


# --- through the host ---


@pytest.fixture(scope="module")
def rig():
    return Rig(runs.SHIPPED, pictures=4)


def test_cfg_is_aligned_as_two_predictions_by_hand_say(rig):
    """CFG 2 moves the prediction by what the prompt changes in it."""
    from nag_pag_flux.lab.evidence import sampling

    sigmas = alignment.SIGMAS
    without, truth = rig.predict(plain(), rig.renders, sampling.conditioning([""]), sigmas)
    assert torch.allclose(truth, rig.renders, atol=1e-5)
    delta, residual = rig.plain_prediction - without, rig.renders - rig.plain_prediction
    size = residual.flatten(2).square().sum(2).mean(1)[:, None, None, None, None]
    delta, residual = (t.div(size.sqrt()).transpose(0, 1).flatten(1) for t in (delta, residual))
    found = alignment.alignment(rig, CFG.judged)
    assert found["cosine"].value == pytest.approx(float(torch.cosine_similarity(delta, residual).mean()), abs=1e-3)
    least = torch.linalg.lstsq(delta.reshape(-1, 1), residual.reshape(-1, 1)).solution.item()
    assert found["weight"].value == pytest.approx(least, abs=1e-3)


def test_no_guidance_points_nowhere_and_some_does(rig):
    assert alignment.alignment(rig, plain())["weight"].value == 0
    found = alignment.alignment(rig, Setting("output", 6).contender(renew_every=1))
    assert list(found) == list(SIGNALS) and all(m.value != 0 and m.error > 0 for m in found.values())


def test_what_is_measured_is_kept(tmp_path, monkeypatch):
    """A run that breaks off goes on where it was."""
    made, wanted = [], alignment.settings()[:3]
    monkeypatch.setattr(alignment.host, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(alignment, "Rig", lambda path: path)

    def counted(rig, contender):
        made.append(contender.key)
        return {"cosine": Measured(len(made), 0.5)}

    monkeypatch.setattr(alignment, "alignment", counted)
    first = alignment.measure(runs.SHIPPED, wanted[:2])
    both = alignment.measure(runs.SHIPPED, wanted)
    assert made == [setting.key for setting in wanted]
    assert first.items() <= both.items() and both[wanted[2]] == {"cosine": Measured(3, 0.5)}


def test_without_any_kept_picture_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(alignment, "measure", lambda file, wanted: {})
    monkeypatch.setattr(recovery, "look", lambda subject: None)
    monkeypatch.setattr(calibration_page, "PAGE", tmp_path / "page.md")
    with pytest.raises(SystemExit, match="choosing candidates makes them"):
        calibration.main(["0"])
    assert not list(tmp_path.iterdir())


def test_what_has_no_pictures_has_no_gain(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.Part, "file", tmp_path / "missing")
    assert alignment.judged_gains(runs.Subject(0), alignment.settings()) == {}


# --- page ---


def model_of(name, sign):
    """Every signal ranks as the gains do, or the other way round; CFG is not judged."""
    numbers = {
        setting: dict.fromkeys(SIGNALS, Measured(sign * i / 10, 0.01)) for i, setting in enumerate(alignment.settings())
    }
    gains = {setting: Measured(i / 100, 0.02) for i, setting in enumerate(numbers) if setting != CFG}
    half = {setting: gain.value for setting, gain in gains.items()}
    return alignment.Model(name, numbers, gains, (half, half))


def test_the_page_says_what_ranks_alike_and_what_does_not():
    page = calibration_page.page([model_of("seed 0", 1), model_of("seed 1", -1)], [found_of("seed 0", 1)])
    row = next(line for line in page.splitlines() if line.startswith("| cosine |"))
    assert row.count("+1.00 ± 0.00") == row.count("-1.00 ± 0.00") == 3
    assert "- cosine: agrees beyond error bars on 1 of 2 models, disagrees beyond them on 1." in page
    assert "(output, block 7)" in page and "(attention, block 0)" in page  # what each model's signals put first
    assert page.count("| CFG 2 | not judged |") == 2
    assert page.index("| output, block 7 |") < page.index("| attention, block 0 |")


def test_the_page_of_models_that_nobody_judged_has_signals_only():
    unjudged = model_of("seed 5", 1)._replace(gains={}, halves=({}, {}))
    page = calibration_page.page([unjudged], [])
    assert page.count("not judged") == len(alignment.settings())


# --- recovery ---


def found_of(name, sign):
    """Recovery that ranks as the gains do, or the other way round."""
    settings = recovery.settings()
    changes = {contender: Measured(sign * i / 10, 0.01) for i, contender in enumerate(settings)}
    gains = {contender: Measured(i / 100 - 0.1, 0.02) for i, contender in enumerate(settings)}
    return recovery.Found(name, changes, changes, gains)


def test_the_section_says_whether_recovery_ranks_as_the_judges_do():
    alike, unlike = found_of("seed 0", 1), found_of("seed 1", -1)
    section = recovery_page.section([alike, unlike])
    last, first = recovery.settings()[-1].name, recovery.settings()[0].name
    assert "| seed 0 | 40 | +1.00 ± 0.00 | +1.00 ± 0.00 | +1.00 ± 0.00 | +1.00 ± 0.00 | " in section
    assert "| seed 1 | 40 | -1.00 ± 0.00 | -1.00 ± 0.00 | -1.00 ± 0.00 | +1.00 ± 0.00 | " in section
    assert f"| seed 0 | {last} | +0.290 ± 0.020 | +0.290 ± 0.020 ({last}) | +0.095 |" in section
    assert f"| seed 1 | {first} | -0.100 ± 0.020 |" in section
    assert (
        "beyond two errors, on 1 of 2 models, and the other way round on 1. What it puts first gains +0.095 on"
        in section
    )
    assert len(alike.gentle()) == 34 and min(alike.gentle().values()) == pytest.approx(-0.04)


def test_what_is_a_models_own_is_what_others_do_not_have():
    a, b, c = recovery.settings()[:3]

    def found(changes, gains):
        def measured(values):
            return {s: Measured(v, 0.1) for s, v in zip((a, b, c), values, strict=False)}

        return recovery.Found("x", measured(changes), {}, measured(gains))

    models = [found((1, 2, 3), (4, 5, 7)), found((1, 1, 1), (2, 2)), found((3, 3), (4,))]
    assert recovery.beyond(models[0], models) == ({a: -1, b: 0, c: 2}, {a: 1, b: 3})


def test_recovery_is_that_of_the_kept_pictures(tmp_path, monkeypatch):
    """Renders in the place of samples: the model finds its prompts in them, and not in grey ones."""
    monkeypatch.setattr(runs, "folder", lambda: tmp_path)
    monkeypatch.setattr(runs, "PART_SIZE", 32)
    monkeypatch.setattr(recovery, "PART_SIZE", 32)
    subject, grey = runs.Subject(0), recovery.settings()[0]
    assert recovery.changes(subject, [grey]) == {} and recovery.look(subject) is None
    for contender in (plain(), grey):
        part = recovery._part(subject, contender)
        pictures = judges.real_pictures(part.prompts.rows(0)[0])
        pictures = torch.full_like(pictures, 0.5) if contender is grey else pictures
        runs.save({"pictures": (pictures * 255).round().byte()}, part.file)
    assert recovered(recovery.losses(recovery._part(subject, plain()))) > 0.5
    (change,) = recovery.changes(subject, [grey]).values()
    assert change.harms and change.value < -0.5
    assert recovery.own_if_made(subject) is None


def test_the_plots_are_drawn(tmp_path):
    calibration_plots.draw_alignment([model_of("seed 0", 1), model_of("seed 1", -1)], tmp_path / "plot.png")
    calibration_plots.draw_recovery([found_of("seed 0", 1)], tmp_path / "recovery.png")
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in tmp_path.iterdir())
    assert {path.name for path in (calibration_plots.ALIGNMENT, calibration_plots.RECOVERY)} == {
        "calibration.png",
        "recovery.png",
    }

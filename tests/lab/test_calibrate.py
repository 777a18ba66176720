"""Calibration's command: what the model says of settings beside what the judges say, and its page."""

import pytest
import torch
from nag_pag_flux.lab.evidence import calibration, calibration_page, calibration_plot, judges, recovery, runs
from nag_pag_flux.lab.evidence.contenders import plain
from nag_pag_flux.lab.evidence.recovery import rank_agreement
from nag_pag_flux.lab.evidence.subjects import Subject
from nag_pag_flux.nagpag.calibration.recovery import recovered
from nag_pag_flux.nagpag.measure import Measured


def noise(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agreement_is_the_textbook_formula():
    a, b = noise(9), noise(9, seed=1)
    d = a.argsort().argsort() - b.argsort().argsort()
    found = rank_agreement(dict(enumerate(a.tolist())), dict(enumerate(b.tolist())), resamples=2)
    assert found.value == pytest.approx(1 - 6 * int(d.square().sum()) / (9 * 80))


def test_agreement_is_over_the_settings_that_both_have():
    gain = {("m", str(i), "output", "limited"): float(i) for i in range(6)}
    signal = {key: value**3 for key, value in gain.items()} | {("m", "9", "output", "limited"): -100.0}
    assert rank_agreement(signal, gain).value == pytest.approx(1.0)
    opposite = {key: -value for key, value in gain.items()}
    assert rank_agreement(opposite, gain).value == pytest.approx(-1.0)


def test_the_error_of_an_agreement_is_the_spread_over_other_settings():
    """Settings drawn anew from one population, against the error that one draw of them says."""

    def measures(seed):
        truth = noise(40, seed=seed)
        return dict(enumerate((truth + noise(40, seed=seed + 500)).tolist())), dict(enumerate(truth.tolist()))

    drawn = [rank_agreement(*measures(seed), resamples=2 if seed else 400) for seed in range(100)]
    spread = float(torch.tensor([found.value for found in drawn]).std())
    assert drawn[0].error == pytest.approx(spread, rel=0.35)


def test_two_settings_are_too_few():
    with pytest.raises(ValueError, match="2 settings are in both measures, of 3 and 2; 3 are needed"):
        rank_agreement({1: 0.0, 2: 1.0, 3: 2.0}, {1: 0.0, 2: 1.0})


# --- the page ---


@pytest.mark.parametrize("word, said", [("x", "'x' is not a model"), ("99", "seed 99 is not trained yet")])
def test_a_model_that_is_not_there_is_named(word, said):
    with pytest.raises(SystemExit, match=said):
        calibration.main([word])


def test_without_any_kept_picture_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(recovery, "look", lambda subject: None)
    monkeypatch.setattr(calibration_page, "PAGE", tmp_path / "page.md")
    with pytest.raises(SystemExit, match="choosing makes them"):
        calibration.main([])
    assert not list(tmp_path.iterdir())


def found_of(name, sign):
    """Recovery that ranks as the gains do, or the other way round."""
    settings = recovery.settings()
    changes = {contender: Measured(sign * i / 10, 0.01) for i, contender in enumerate(settings)}
    gains = {contender: Measured(i / 100 - 0.1, 0.02) for i, contender in enumerate(settings)}
    return recovery.Found(name, changes, changes, gains)


def test_the_page_says_whether_recovery_ranks_as_the_judges_do():
    alike, unlike = found_of("seed 0", 1), found_of("seed 1", -1)
    page, count = calibration_page.page([alike, unlike]), len(recovery.settings())
    best, last, first = count / 100 - 0.11, recovery.settings()[-1].name, recovery.settings()[0].name
    assert f"| seed 0 | {count} | +1.00 ± 0.00 | +1.00 ± 0.00 | +1.00 ± 0.00 | +1.00 ± 0.00 | " in page
    assert f"| seed 1 | {count} | -1.00 ± 0.00 | -1.00 ± 0.00 | -1.00 ± 0.00 | +1.00 ± 0.00 | " in page
    assert f"| seed 0 | {last} | {best:+.3f} ± 0.020 | {best:+.3f} ± 0.020 ({last}) | " in page
    assert f"| seed 1 | {first} | -0.100 ± 0.020 |" in page
    assert "beyond two errors, on 1 of 2 models, and the other way round on 1. What it puts first gains" in page
    assert min(alike.gentle().values()) == pytest.approx(-0.04)


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
    monkeypatch.setattr(runs, "pictures_folder", lambda: tmp_path)
    monkeypatch.setattr(runs, "PART_SIZE", 32)
    monkeypatch.setattr(recovery, "PART_SIZE", 32)
    subject, grey = Subject("shipped"), recovery.settings()[0]
    assert recovery.changes(subject, [grey]) == {} and recovery.look(subject) is None
    for contender in (plain(), grey):
        part = recovery._part(subject, contender)
        pictures = judges.real_pictures([question.scene for question in part.prompts.rows(0)[0]])
        pictures = torch.full_like(pictures, 0.5) if contender is grey else pictures
        runs.save({"pictures": (pictures * 255).round().byte()}, part.file)
    assert recovered(recovery.losses(recovery._part(subject, plain()))) > 0.5
    (change,) = recovery.changes(subject, [grey]).values()
    assert change.harms and change.value < -0.5


def test_the_plot_is_drawn(tmp_path):
    calibration_plot.draw([found_of("seed 0", 1)], tmp_path / "recovery.png")
    assert (tmp_path / "recovery.png").read_bytes()[:4] == b"\x89PNG" and calibration_page.PLOT.name == "recovery.png"

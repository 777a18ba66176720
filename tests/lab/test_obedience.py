"""Obedience: what is asked, what the judges call held and right, and a quick form of it through the host."""

import dataclasses
import math

import pytest
import torch
from nag_pag_flux.lab.evidence import contenders, judges, obedience, open_prompts, runs
from nag_pag_flux.lab.evidence.open_prompts import BROKEN, Question
from nag_pag_flux.lab.evidence.subjects import Subject
from nag_pag_flux.lab.toy import models, open_shapes, shapes
from nag_pag_flux.lab.toy.flux import Sizes
from nag_pag_flux.lab.toy.proportioned import ProportionedFlux
from safetensors.torch import save_file

MANY = open_prompts.questions(120, 5)


def kept(kind):
    return [question for question in MANY if question.kind == kind]


def test_a_prompt_leaves_open_what_the_negative_names_and_tells_the_rest():
    assert {question.kind for question in MANY} == {"colour", "shape", "place"} and open_prompts.questions(
        120, 5
    ) == MANY
    for question in MANY:
        first = question.scene.things[0]
        own = {"colour": shapes.COLOR_NAMES[first.color], "shape": shapes.SHAPES[first.shape]}
        own["place"] = shapes.PLACE_NAMES[first.place]
        said = question.prompt.split(", ")[0]
        assert f" {own[question.kind]} " not in f" {said} ", said
        assert all(f" {word} " in f" {said} " for kind, word in own.items() if kind != question.kind)
        assert question.prompt.endswith(f"on {shapes.BACKGROUND_NAMES[question.scene.background]}")
        forbidden = open_prompts.NAMES[question.kind][question.forbidden]
        assert f" {forbidden} " in f" {question.negative} "
    assert all(len(question.scene.things) == 1 for question in kept("place"))


@pytest.mark.parametrize("kind", open_prompts.KINDS)
def test_what_is_drawn_as_forbidden_is_held_and_otherwise_it_is_not(kind):
    """Renders of the questions' own scenes: forbidden is what their first object really is, and then the next value."""
    asked = kept(kind)
    pictures = judges.real_pictures([question.scene for question in asked])
    real = [getattr(q.scene.things[0], {"colour": "color"}.get(kind, kind)) for q in asked]
    for shift in (0, 1):
        values = [(value + shift) % len(open_prompts.NAMES[kind]) for value in real]
        found = open_prompts.judge(pictures, [Question(q.scene, kind, v) for q, v in zip(asked, values, strict=True)])
        for judge in open_prompts.JUDGES:
            assert float(found.held[judge].double().mean()) == pytest.approx(1 - shift, abs=0.03), judge
            assert float((found.right[judge] / found.asked).mean()) > 0.97, judge


def test_a_prompt_that_leaves_nothing_open_is_the_scene_s_caption():
    asked = open_prompts.whole(6, 5)
    pictures = judges.real_pictures([question.scene for question in asked])
    assert all((q.prompt, q.negative) == (q.scene.caption, "") for q in asked)
    found = open_prompts.judge(pictures, asked)
    assert found.right["cnn"].equal(found.asked) and not found.held["cnn"].any()


def test_what_is_open_may_be_anything_and_what_is_told_may_not():
    (question,) = kept("colour")[:1]
    thing = question.scene.things[0]
    empty = [[len(shapes.SHAPES), len(shapes.COLORS)] for _ in range(4)]

    def right(shape, color, place):
        places = [list(found) for found in empty]
        places[place] = [shape, color]
        return open_prompts._right(places, question)

    assert right(thing.shape, (thing.color + 1) % 6, thing.place) == 1
    assert right((thing.shape + 1) % 6, thing.color, thing.place) == 0
    assert right(thing.shape, thing.color, (thing.place + 1) % 4) == 0
    assert right(BROKEN, thing.color, thing.place) == right(thing.shape, len(shapes.COLORS), thing.place) == 0


# --- through the host ---


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A small model of random weights, its pictures few, in few steps, and kept in a folder of their own."""
    generator = torch.Generator().manual_seed(2)
    flux = ProportionedFlux(Sizes(hidden=128, double_blocks=2, single_blocks=4))
    with torch.no_grad():
        for parameter in flux.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    path = tmp_path / "flux.safetensors"
    save_file({k: v.bfloat16().contiguous() for k, v in flux.state_dict_for_host().items()}, str(path))
    monkeypatch.setattr(runs, "PART_SIZE", 8)
    monkeypatch.setattr(runs, "pictures_folder", lambda: tmp_path / "pictures")
    monkeypatch.setattr(Subject, "file", path)
    return Subject("0s")


def test_every_contender_s_pictures_are_made_and_the_negative_prompt_counts(model, monkeypatch):
    wanted = [contenders.carried(scale=3.0, tau=5.0), contenders.nag(batch=8), contenders.cfg(3.0)]
    prompts = dataclasses.replace(runs.OPEN_CHOOSING, steps=2)
    parts = runs.parts([model], [contenders.plain(), *wanted], prompts, 8)
    questions, _ = prompts.rows(0)
    assert [question.prompt for question in questions[:4]] == [questions[0].prompt] * 4

    def make():
        for part in parts:
            runs.make_part(part)
        return [runs.load_file(part.file)["pictures"].float() for part in parts]

    plain, *guided = make()
    assert plain.shape == (8, 3, 32, 32)
    printed = obedience.table([model], [*wanted, contenders.cfg(7.0)], prompts, 8)
    assert len(printed.splitlines()) == 2 + 4 and "1.09" in printed and "NAGuidance" in printed
    with pytest.raises(LookupError, match="student of seed 0"):
        obedience.table([model], wanted, runs.OPEN_REPORTING, 8)
    monkeypatch.setattr(Question, "negative", "on black")
    same, *other = make()
    assert same.equal(plain)
    for name, one, another in zip(wanted, guided, other, strict=True):
        assert (one - plain).abs().max() > 1 and (one - another).abs().max() > 1, name


def test_a_change_is_the_difference_of_shares():
    kinds = torch.arange(24) // obedience.NOISES % 3
    asked, nothing = torch.full((24,), 2), dict.fromkeys(open_prompts.JUDGES, torch.zeros(24))
    held = dict.fromkeys(open_prompts.JUDGES, (kinds == 1).double())
    before, after = open_prompts.Verdicts(asked, nothing, nothing), open_prompts.Verdicts(asked, held, held)
    assert obedience.change([after], [before], "held", "cnn").value == pytest.approx(1 / 3)
    assert obedience.change([after], [before], "right", "template").value == pytest.approx(1 / 6)
    assert obedience.share([after, before], "held", "cnn") == pytest.approx(1 / 6)


def test_costs_are_counted_at_the_models_own_depths():
    doubles = 19 * 170 / (19 * 170 + 38 * 141)
    assert contenders.carried(renew_every=1).passes == pytest.approx(1 + doubles)
    assert contenders.carried(renew_every=4).passes == pytest.approx(1 + doubles / 4)
    assert contenders.carried(renew_every=1, reach="output").passes == pytest.approx(2)
    half = contenders.share(0, 3 + 3, (3, 6)) + contenders.share(3 + 3, 9, (3, 6))
    assert half == pytest.approx(1) and math.isclose(contenders.share(0, 1, (3, 6)), doubles / 3)


# --- which model ---


def test_models_are_named_by_seed_and_students_by_their_teacher(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path))
    teacher, student = models.file_of("3"), models.file_of("3s")
    assert student.parent == teacher.parent and student.name.startswith(f"{teacher.stem}-student-")
    assert models.file_of("4") != teacher and open_shapes.digest() not in teacher.name
    for path in (teacher, student):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert models.main(["3", "3s"]) == 0
    assert "lab-emoji" in str(models.file_of("emoji3"))
    for word in ("", "s", "1x", "-1", "²", "1ss", "emoji", "emoji1x", "1" * 9):
        with pytest.raises(ValueError, match="is not a model; valid is a seed"):
            models.file_of(word)
    assert models.main(["3", "one"]) == 2


def test_teachers_are_trained_before_their_students_and_what_is_there_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path))
    models.file_of("1").parent.mkdir()
    models.file_of("1").touch()
    stages = []

    def train(jobs, slots):
        stages.append({name: command[-2:] for name, command in jobs.items()})
        return ["2"] if "2" in jobs and fails else []

    monkeypatch.setattr(models.shipping, "side_by_side", train)
    fails = False
    assert models.main(["1", "1s", "2s", "0", "2s"]) == 0
    first = {"2": ["models", "2"], "0": ["models", "0"]}
    assert stages == [first, {"1s": ["models", "1s"], "2s": ["models", "2s"]}]
    fails = True
    assert models.main(["2s", "1s"]) == 1 and len(stages) == 3


@pytest.mark.parametrize("words", [["one"], ["77"], ["none.safetensors"], ["3", "--count", "100"]])
def test_what_can_t_be_measured_is_refused_before_anything_is_made(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path))
    with pytest.raises(SystemExit):
        obedience.main(words)
    assert words[-1] in capsys.readouterr().err

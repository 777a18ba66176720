"""Open prompts of emoji: what is asked and forbidden, and what the judges call held and right, on stand-ins."""

from dataclasses import replace

import pytest
from drawn_emoji import stand_ins
from nag_pag_flux.lab.evidence import domains, emoji_judges, emoji_prompts, emoji_templates, open_prompts, runs
from nag_pag_flux.lab.evidence.emoji_prompts import KINDS, Question
from nag_pag_flux.lab.evidence.subjects import Subject
from nag_pag_flux.lab.toy import emoji

MANY = emoji_prompts.questions(80, 5)


@pytest.fixture(scope="module", autouse=True)
def drawn():
    drawings = stand_ins()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji, "drawings", lambda: drawings)
        # What the templates find stands for both judges here: the CNN takes minutes to learn.
        patch.setattr(emoji_judges, "read", lambda pictures: {"template": seen(pictures)})
        emoji_templates._drawn.cache_clear()
        yield
    emoji_templates._drawn.cache_clear()


def seen(pictures):
    return emoji_judges._seen_by_templates(emoji_templates.fit(pictures))


def kept(kind):
    return [question for question in MANY if question.kind == kind][:8]


def test_each_kind_in_turn_of_combinations_that_nothing_was_trained_on():
    assert [question.kind for question in MANY[: len(KINDS)]] == list(KINDS) and emoji_prompts.questions(80, 5) == MANY
    parts = ([getattr(question.scene, part) for part in emoji.PARTS] for question in MANY)
    assert all(emoji.held_out(*values) for values in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_leaves_open_what_the_negative_names_and_tells_the_rest(kind):
    for question in kept(kind):
        own, said = emoji.PARTS[kind][getattr(question.scene, kind)], question.prompt.split(", ")
        forbidden = emoji.PARTS[kind][question.forbidden]
        assert own not in said and f"on {own}" not in said and f"{own} style" not in said
        assert len(said) == len(emoji.PARTS) - (kind != "concept")
        assert forbidden in question.negative
        if kind == "concept":
            assert question.negative == forbidden
            assert emoji.KIND_OF[question.forbidden] == emoji.KIND_OF[question.scene.concept]
        else:
            assert question.negative.split(", ")[0] == emoji.KIND_NAMES[emoji.KIND_OF[question.scene.concept]]
            assert len(question.negative.split(", ")) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_as_forbidden_is_held_and_otherwise_it_is_not(kind):
    asked = kept(kind)
    pictures = emoji_judges.real_pictures([question.scene for question in asked])
    for shift in (0, 1):
        values = [(getattr(q.scene, kind) + shift) % len(emoji.PARTS[kind]) for q in asked]
        found = emoji_prompts.judge(pictures, [replace(q, forbidden=v) for q, v in zip(asked, values, strict=True)])
        assert found.held["template"].tolist() == [1 - shift] * len(asked)
        assert found.right["template"].equal(found.asked) and found.asked.tolist() == [1] * len(asked)


def test_what_is_told_has_to_be_there():
    asked = kept("ground")
    elsewhere = [replace(q.scene, ground=(q.scene.ground + 1) % 6) for q in asked]
    others = [replace(q.scene, vendor=(q.scene.vendor + 1) % 4) for q in asked]
    right = [
        emoji_prompts.judge(emoji_judges.real_pictures(scenes), asked).right["template"]
        for scenes in (elsewhere, others)
    ]
    assert right[0].all() and not right[1].any()


def test_a_prompt_that_leaves_nothing_open_tells_all_and_forbids_nothing():
    asked = emoji_prompts.whole(4, 5)
    assert all(q.prompt.count(", ") == len(emoji.PARTS) - 1 and q.negative == "" for q in asked)
    assert not emoji_prompts.judge(emoji_judges.real_pictures([q.scene for q in asked]), asked).held["template"].any()
    assert Question(asked[0].scene, open_prompts.NOTHING).negative == ""


def test_a_model_is_asked_for_and_judged_by_what_it_draws():
    drawn = {name: Subject(name).domain for name in ("0", "3s", "shipped", "emoji0", "emoji12s")}
    assert [domain.name for domain in drawn.values()] == ["coloured shapes"] * 3 + ["emoji"] * 2
    prompts, _ = runs.REPORTING.rows(0, domains.EMOJI)
    assert isinstance(prompts[0], Question) and isinstance(runs.REPORTING.rows(0)[0][0], open_prompts.Question)
    assert runs.REPORTING.key(domains.EMOJI) != runs.REPORTING.key(domains.SHAPES)
    assert runs.judges_digest(domains.EMOJI) != runs.judges_digest()


def test_both_domains_offer_what_the_evidence_asks_for():
    for domain in (domains.SHAPES, domains.EMOJI):
        assert all(hasattr(domain.prompts, name) for name in ("KINDS", "digest", "judge", "questions", "whole"))
        names = ("score", "real_scores", "real_reference", "held_out_accuracy")
        assert all(hasattr(domain.judges, name) for name in names)

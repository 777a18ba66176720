"""A branch beside patches that keep something from one call to the next: neither reads or changes the other's."""

import logging

import comfy.sample
import pytest
import torch
from comfy.ldm.flux.model import Flux
from comfy_extras.nodes_flux import FluxKVCache
from family import FLUX2, load
from nag_pag_flux.nagpag.patch.copies import Copies
from own_forward import OwnForward
from sampling import guided, prompt
from two_streams import Branch

REFERENCE = {"reference_latents": [torch.randn(1, 128, 4, 6, generator=torch.Generator().manual_seed(3))]}
TOKENS, REACHES = 24, [("double blocks", 3), ("output", 5)]
BLEND = {"scale": 3.0, "tau": 1.5, "alpha": 0.15}
VANISHING = {"perturbation": 1e-30}


@pytest.fixture(scope="module")
def flux2():
    return load(Flux, FLUX2)


@pytest.fixture(scope="module")
def cached(flux2):
    """What the cache draws by itself in three steps, by cfg."""
    return {cfg: sample(with_cache(flux2), cfg=cfg, steps=3) for cfg in (1.0, 3.0)}


def with_cache(model):
    return FluxKVCache.execute(model).args[0]


def orders(model, **inputs):
    """With our node behind the cache and before it."""
    return guided(with_cache(model), **inputs), with_cache(guided(model, **inputs))


def sample(model, negative=None, cfg=1.0, steps=2):
    """The first step fills the cache, the second reads it."""
    start = torch.zeros(1, 128, 4, 6)
    noise = comfy.sample.prepare_noise(start, 7)
    conds = prompt(1, **REFERENCE), negative or prompt(2, **REFERENCE)
    return comfy.sample.sample(model, noise, steps, cfg, "euler", "simple", *conds, start, disable_pbar=True, seed=7)


class WithItsOwnCache(OwnForward):
    """The host's own forward on the negative prompt, beside a FluxKVCache of its own."""

    def negative_hidden(self, apply_model, x, t, c, rows):
        if not hasattr(self, "patches"):
            self.patches = with_cache(self.of).model_options["transformer_options"]["patches"]

        def beside(x, t, **c):
            return apply_model(
                x, t, **{**c, "transformer_options": {**c["transformer_options"], "patches": self.patches}}
            )

        return super().negative_hidden(beside, x, t, c, rows)


def expected(model, negative, merge, every, branch=None, steps=2):
    oracle = WithItsOwnCache(model, negative, merge, TOKENS, tuple(BLEND.values()), branch, every)
    oracle.of = model
    return sample(oracle.patched(with_cache(model)), negative, steps=steps)


def assert_is(found, wanted, plain):
    effect = (wanted - plain).abs().max()
    assert effect > 1e-3 and (found - wanted).abs().max() <= 2e-3 * effect


@pytest.mark.parametrize("reach, merge", REACHES)
@pytest.mark.parametrize("every", [1, 2])
def test_the_references_of_a_negative_prompt_are_its_own(flux2, reach, merge, every, caplog):
    """With renewals as many steps more, so that the branch reads what it kept two steps ago."""
    negative, steps = prompt(3, **REFERENCE), every + 1
    inputs = {**BLEND, "perturbation": 0.0, "reach": reach, "renew_every": every, "negative_prompt": "sampler's"}
    wanted = expected(flux2, negative, merge, every, steps=steps)
    plain = sample(with_cache(flux2), negative, steps=steps)
    for model in orders(flux2, **inputs):
        assert_is(sample(model, negative, steps=steps), wanted, plain)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("reach, merge", REACHES)
def test_the_references_of_a_disturbed_branch_are_its_own(flux2, reach, merge):
    branch = Branch((1, 2), merge, TOKENS)
    wanted, plain = expected(flux2, prompt(1, **REFERENCE), merge, 1, branch), sample(with_cache(flux2))
    for model in orders(flux2, **BLEND, blocks="1, 2", reach=reach, renew_every=1):
        assert_is(sample(model), wanted, plain)


@pytest.mark.parametrize("reach", ["attention", "double blocks", "output"])
@pytest.mark.parametrize("cfg, part", [(3.0, {}), (1.0, {"start_percent": 0.3})])
def test_the_cache_alone_is_left_where_nothing_is_disturbed(flux2, cached, reach, part, cfg):
    """Guided from the first step on, and from one at which the cache is full already."""
    plain = cached[cfg]
    for model in orders(flux2, blocks="1", reach=reach, renew_every=2, **VANISHING, **part):
        assert (sample(model, cfg=cfg, steps=3) - plain).abs().max() <= 1e-4 * plain.abs().max()


# --- what is copied, and what is not ---


class Single:
    """There is one only, which gives itself where a copy is asked for."""

    made = None

    def __new__(cls):
        cls.made = cls.made or super().__new__(cls)
        return cls.made


class Shy:
    def __reduce_ex__(self, protocol):
        raise TypeError("not to be copied")

    __copy__ = None


class Slots:
    __slots__ = ("__dict__", "kept")


def keeping(state):
    """A patch that keeps what it gets."""

    def patch(value):
        state.kept = value
        return state

    return patch


@pytest.mark.parametrize("kind", [Single, Slots])
def test_what_is_made_in_a_way_of_its_own_is_left_as_it_is(kind):
    state = kind()
    state.kept = [1]
    own = Copies().of(keeping(state))
    assert own(2) is state and state.kept == 2


def test_no_code_of_a_pack_runs_to_copy_its_object():
    state = Shy()
    state.kept = 1
    own = Copies().of(keeping(state))
    assert own(2) is not state and state.kept == 1 and type(own(2)) is Shy


def test_a_default_that_is_kept_in_is_copied():
    def patch(value, seen=[]):
        seen.append(value)
        return seen

    patch(1)
    copies = Copies()
    assert copies.of(patch)(2) == [1, 2] and patch(3) == [1, 3]


def test_what_hangs_on_a_function_hangs_on_its_copy():
    def patch(value):
        return state, value

    state, patch.wants = Shy(), ("img",)
    own = Copies().of(patch)
    assert own is not patch and vars(own) == vars(patch) == {"wants": ("img",)}


def test_what_is_not_asked_for_again_is_let_go():
    """A node that makes its patches anew for each step."""
    copies = Copies()
    for _ in range(20):
        copies.begin()
        copies.of(keeping(Shy()))
        copies.end()
        copies.forget()
    assert len(copies._known) <= 3

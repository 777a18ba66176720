"""What guidance needs in memory at its peak, in activations of the picture's and text's tokens."""

import pytest
import torch
from by_prediction import in_windows
from nag_pag_flux.lab.cost.live_bytes import LiveBytes
from nag_pag_flux.nagpag.patch import memory
from nag_pag_flux.nagpag.patch.run import Run
from sampling import guided, load_flux, picture_tokens, prompt, sample

TOKENS = 9 + picture_tokens(64, 64)
ACTIVATION = TOKENS * 256 * 4  # bytes: the small model's width, float32


def peak(model, **sampling):
    with LiveBytes() as live:
        sample(model, prompt(1), size=(1, 64, 64), steps=2, **sampling)
    return live.peak


@pytest.fixture(scope="module")
def plain_peak(flux):
    peak(flux)  # loads the model
    return peak(flux)


def test_the_count_follows_what_lives():
    with LiveBytes() as live:
        a = torch.ones(1000)
        b = (a + 1).view(10, 100)  # a view is no memory
        assert (live.now, live.peak) == (8000, 8000)
        del a
        b.add_(1)
        assert (live.now, live.peak) == (4000, 8000)
        del b
        assert (live.now, live.peak) == (0, 8000)


@pytest.mark.parametrize("negative", ["identity", "mean"])
def test_reach_attention_needs_one_activation_at_most(flux, plain_peak, negative):
    assert peak(guided(flux, negative=negative)) - plain_peak <= 1.05 * ACTIVATION


@pytest.mark.parametrize("reach", ["double blocks", "output"])
@pytest.mark.parametrize("renew_every", [1, 2])
def test_a_branch_needs_three_at_most(flux, plain_peak, reach, renew_every):
    model = guided(flux, reach=reach, blocks="1", renew_every=renew_every)
    assert peak(model) - plain_peak <= 3.05 * ACTIVATION


@pytest.mark.parametrize("reach", ["double blocks", "output"])
@pytest.mark.parametrize("renew_every", [1, 2])
def test_a_negative_prompt_needs_its_text_beside(flux, plain_peak, reach, renew_every):
    """The text, projected and as it came, and its positions."""
    tokens = 14
    model = guided(flux, reach=reach, blocks="1", renew_every=renew_every, negative_conditioning=prompt(2, tokens))
    text = tokens * 4 * (256 + 64 + 128 * 2) + TOKENS * 4 * 64 * 4
    assert peak(model) - plain_peak <= 3.05 * ACTIVATION + text


def test_identity_and_text_needs_few_rows_at_a_time(flux, plain_peak):
    from nag_pag_flux.nagpag.perturbation import PIECE_BYTES

    assert peak(guided(flux, negative="identity + text")) - plain_peak <= 1.05 * ACTIVATION + 6 * PIECE_BYTES


def test_out_of_memory_in_a_block_frees_the_branch(flux_file):
    """While the host handles the error, which holds the frames it went through, no chunk holds a stream."""
    from nag_pag_flux.nagpag.patch.forward import Chunk

    def full(args, extra):
        if "nag_pag_negative" not in args["transformer_options"]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return extra["original_block"](args)

    model = load_flux(flux_file)
    model.set_model_patch_replace(full, "dit", "double_block", 2)
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        sample(guided(model, reach="double blocks", blocks="1"), prompt(1))
    chunks, trace = [], caught.value.__traceback__
    while trace:
        chunks += [value for value in trace.tb_frame.f_locals.values() if isinstance(value, Chunk)]
        chunks += [
            c for f in trace.tb_frame.f_locals.values() for c in getattr(f, "chunks", ()) if isinstance(c, Chunk)
        ]
        trace = trace.tb_next
    assert chunks and all(chunk.stream is None and chunk.difference is None for chunk in chunks)


# --- what is held from step to step ---

POSITIVE = prompt(1)
NAG = {"reach": "attention", "blocks": "all", "negative_prompt": "sampler's", "renew_every": 2, "perturbation": 0.0}


def room(model, monkeypatch, positive=POSITIVE, **sampling):
    """What the host is asked to make room for before a sampling, at most and at least, and what is held in it then."""
    import comfy.model_management

    asked, held, load = [], [], comfy.model_management.load_models_gpu

    def heard(models, memory_required=0, minimum_memory_required=None, **more):
        asked.append((memory_required, minimum_memory_required))
        return load(models, memory_required=memory_required, minimum_memory_required=minimum_memory_required, **more)

    def look(args):
        runs = [one for one in args["model_options"]["transformer_options"].values() if isinstance(one, Run)]
        kept = [tensor for run in runs for one in run.differences.values() for tensor in one.differences.values()]
        held.append(sum(tensor.numel() * tensor.itemsize for tensor in kept))
        return args["denoised"]

    model = model.clone()
    model.set_model_sampler_post_cfg_function(look, disable_cfg1_optimization=False)
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", heard)
    sample(model, positive, prompt(2), **sampling)
    return *asked[-1], max(held)


@pytest.mark.parametrize("size", [(1, 64, 64), (3, 20, 14)])
def test_the_host_makes_room_for_what_every_block_holds(flux, monkeypatch, size):
    plain_most, plain_least, nothing = room(flux, monkeypatch, size=size)
    most, least, held = room(guided(flux, **NAG), monkeypatch, size=size)
    assert nothing == 0 and held == 6 * size[0] * picture_tokens(*size[1:]) * 256 * 4
    a_row = plain_least / size[0]
    assert held <= least - plain_least < held + 1.01 * a_row and most - plain_most >= held


@pytest.mark.parametrize(
    "inputs", [{"renew_every": 1}, {"negative_prompt": "off", "perturbation": 1.0}, {"reach": "output"}]
)
def test_for_what_is_as_small_as_cfgs_it_makes_none(flux, monkeypatch, inputs):
    most, least, _ = room(guided(flux, **{**NAG, **inputs}), monkeypatch)
    assert (most, least) == room(flux, monkeypatch)[:2]


def test_where_it_cannot_be_told_the_sampling_goes_on(flux, monkeypatch, caplog):
    plain = room(flux, monkeypatch)
    monkeypatch.setattr(memory, "held_bytes", lambda *args: 1 / 0)
    model = guided(flux, **NAG)
    assert room(model, monkeypatch)[:2] == plain[:2]
    assert caplog.text.count("is not made room for: ZeroDivisionError") == 1 and "guided" in caplog.text


def test_for_two_nodes_and_for_two_prompts_it_makes_room_once_each(flux, monkeypatch):
    one = guided(flux, **NAG)
    plain, first = room(flux, monkeypatch), room(one, monkeypatch)
    both = room(guided(one, **{**NAG, "blocks": "0-3"}), monkeypatch)
    assert 6 * both[2] == 10 * first[2]
    a_row = plain[1]
    assert both[2] <= both[1] - plain[1] < both[2] + 1.01 * a_row
    two = room(one, monkeypatch, positive=[*prompt(1), *prompt(3)])
    assert two[2] == 2 * first[2] <= two[1] - plain[1] < two[2] + 1.01 * a_row


def test_in_context_windows_nothing_is_held_and_no_room_is_made(flux, monkeypatch):
    asked = [room(in_windows(model, 8, 2), monkeypatch, size=(1, 8, 20)) for model in (flux, guided(flux, **NAG))]
    assert asked[0] == asked[1] and asked[1][2] == 0

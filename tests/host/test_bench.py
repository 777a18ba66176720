"""The bench, whole, on models so small that its numbers say nothing; and what it makes of numbers that are known."""

import math
import re

import pytest
import torch
from nag_pag_flux.lab.cost import bench, goals, page
from nag_pag_flux.lab.cost.random_flux import Sizes, random_flux, step_seconds
from nag_pag_flux.lab.cost.results import Entry, Shares, Times

TINY = Sizes(hidden=128, doubles=4, singles=2, context=64, pooled=32, text=8, latent=8)
# A branch that begins in one block goes on into another, and graphs are of the whole model: more blocks take longer.
TRACED = Sizes(hidden=128, doubles=2, singles=1, context=64, pooled=32, text=8, latent=8)
CPU = torch.device("cpu")


# Of one graph and of two: to compile takes seconds.
FEW = ("attention, identity", "double blocks, renewed every 4")


@pytest.fixture(scope="module")
def results():
    """The path that a GPU takes at FLUX.1's size."""
    entries = bench.entries
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            bench, "entries", lambda model, sizes: [e for e in entries(model, sizes) if sizes == TINY or e.name in FEW]
        )
        return bench.measure(TINY, CPU, compiled=TRACED, rounds=1, steps=2)


@pytest.fixture
def tiny():
    return random_flux(TINY, CPU)


def test_every_entry_has_its_rows(results):
    text = page.page(results)
    for name in ("plain", *(entry.name for entry in results.entries)):
        assert text.count(f"\n| {name} |") == (2 if name in results.graphs else 1), name
    assert len(results.entries) == 25
    assert "nan" not in text.replace("± nan", "")  # the errors alone need a second round


def test_the_page_begins_with_its_conclusion(results):
    text = page.page(results)
    first = text.splitlines()[2]
    for name, told in zip(("the node's defaults", "CFG 2"), re.findall(r"([\d.]+)× \(", first), strict=True):
        timed = re.match(r"[\d.]+", text.split(f"\n| {name} | ")[1])[0]
        assert float(timed) == pytest.approx(float(told), abs=0.0056) and name in first  # 3 decimals, and 2


def test_what_no_gpu_measured_is_said(results):
    assert "Not measured yet: no GPU was at hand" in page.page(results)
    assert [goal.verdict for goal in goals.goals(results)][-1] == "not measured"


def test_compiled_graphs_are_those_of_plain_or_one_more(results):
    """One more where a renewed branch alternates with its kept difference; see test_compile."""
    assert set(results.graphs) == {"plain", *FEW}
    for entry in results.entries:
        if entry.reach and entry.name in results.graphs:
            assert results.graphs[entry.name] == (2 if entry.every > 1 else 1, 0), entry.name


def test_a_goal_is_met_missed_or_open():
    found = [goals.Goal("a goal", value, 1.03, "{:.3f}×", "someone") for value in (1.03, 1.031, None)]
    assert [goal.verdict for goal in found] == ["met", "**missed**", "not measured"]
    assert found[1].row() == ("a goal", "1.031× (someone)", "**missed**")


def test_blocks_are_counted_as_by_hand(tiny):
    """The branch starts in block 1 of 4 and runs through 3 double and 2 single blocks."""
    named = {entry.name: entry for entry in bench.entries(tiny, TINY)}
    shares = Shares(0.1, 0.05)

    def counted(name, steps=20):
        return pytest.approx(named[name].counted(shares, steps))

    assert counted("attention, softened") == 1.0
    assert counted("double blocks, renewed every 1") == 1.3
    assert counted("output, renewed every 1") == 1.4
    assert counted("output, renewed every 4") == 1.1 and counted("output, renewed every 4", 8) == 1.1
    # A negative prompt is carried from block 0: all 4 double blocks, and all 2 single ones.
    assert counted("negative prompt, double blocks, renewed every 1") == 1.4
    assert counted("negative prompt, output, renewed every 4") == 1.0 + 0.5 / 4
    assert counted("negative prompt, attention, renewed every 1, all blocks") == 1.5
    assert counted("negative prompt, attention, renewed every 4, all blocks") == 1.0 + 0.5 / 4
    assert counted("CFG 2") == counted("ComfyUI's NAGuidance") == 2.0
    # The defaults begin at 45 %, and hold a difference for 30 % of the sampling: at steps 9 and 15 of 20, 4 and 6 of 8.
    assert counted("the node's defaults") == 1.1 and counted("the node's defaults", 8) == 1.25
    assert counted("negative prompt, prediction, renewed every 4") == 1.25
    # Four steps renew once, as eight do.
    assert counted("output, renewed every 8", 8) == 1.05 and counted("output, renewed every 8", 4) == 1.1


def test_steps_that_renew_are_put_together_with_the_others():
    entry = Entry("a branch", None, blocks=(1, 0), every=4)
    rounds = [[1.4, 1.0, 1.01, 1.0] * 2, [1.4, 1.0, 1.0, 9.9] * 2]  # an outlier in a quarter of the others
    times = Times({"a branch": rounds}, [], Shares(0.4, 0.0))
    assert times.at(entry) == pytest.approx((1.4 + 3 * 1.0) / 4)  # at 5 of 20 steps, too
    assert times.gap(entry) == pytest.approx(0.0)


def test_the_error_comes_from_how_rounds_differ():
    entry = Entry("any", None)
    times = Times({"any": [[1.0] * 4, [1.1] * 4]}, [], Shares(0.0, 0.0))
    assert times.at(entry) == pytest.approx(1.05) and times.error(entry) == pytest.approx(0.05)
    assert math.isnan(Times({"any": [[1.0] * 4]}, [], Shares(0.0, 0.0)).error(entry))


def test_blocks_take_their_share_of_a_step(tiny):
    shares = bench.time_blocks(tiny, TINY, 2)
    assert min(shares) > 0 and shares.of(4, 2) < 1
    assert not any(block._forward_hooks for block in tiny.model.diffusion_model.double_blocks)


def test_a_random_flux_is_what_the_stock_loader_makes_of_a_file(tiny, tmp_path):
    import comfy.sd
    from nag_pag_flux.lab.toy.small_models import make_flux

    path = tmp_path / "flux.safetensors"
    make_flux(path, TINY.hidden, TINY.doubles, TINY.singles, TINY.context, TINY.pooled, dtype=torch.bfloat16)
    loaded = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.bfloat16})

    def shapes(model):
        weights = model.model.diffusion_model.state_dict()
        return {name: (weight.shape, weight.dtype) for name, weight in weights.items()}

    assert type(tiny.model) is type(loaded.model) and shapes(tiny) == shapes(loaded)


def test_every_step_is_timed_and_sampled_as_the_host_does(tiny):
    assert len(step_seconds(tiny, TINY, 3)) == 3


def test_full_without_a_gpu_is_refused(capsys):
    if torch.cuda.is_available():
        pytest.fail("these tests are meant for a machine without a GPU in reach")
    with pytest.raises(SystemExit):
        bench.main(["--full"])
    assert "torch sees none" in capsys.readouterr().err

"""Families beside FLUX, small, of random weights, through the host's own loader and sampler, each beside an oracle."""

import dataclasses
import importlib

import pytest
import torch
from comfy.controlnet import ControlBase
from families_oracle import SecondForward, disturbed_attention, guided_in_attention
from nag_pag_flux.lab.cost.live_bytes import LiveBytes
from nag_pag_flux.lab.host import REPO
from nag_pag_flux.lab.toy import small_families
from nag_pag_flux.nagpag.diagnostics.inspect import inspect_model
from nag_pag_flux.nagpag.diagnostics.record import Record
from nag_pag_flux.nagpag.diagnostics.recording import record_model
from nag_pag_flux.nagpag.inputs.guidance import MODEL, NEGATIVE
from nag_pag_flux.nagpag.patch import find_model
from nag_pag_flux.nagpag.patch.families import FAMILIES
from nag_pag_flux.nagpag.patch.memory import held_bytes
from nag_pag_flux.nagpag.patch.plan import PLANS
from other_families import CASES, HERE, keyframe, noise_mask, prompt, sample, some
from own_forward import of_rows
from sampling import guided

WITH_BRANCHES = [case for case in HERE if "output" in case.reaches]
# Other models of a family run what they have of their own only: references, latents, and what they give a block.
FIRST = pytest.mark.parametrize("case", [case for case in HERE if not case.another], ids=str)
MODELS = pytest.mark.parametrize("case", {case.small: case for case in HERE}.values(), ids=str)
REFERENCES = pytest.mark.parametrize("case", [case for case in HERE if case.reference is not None], ids=str)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The checkpoints."""
    folder = tmp_path_factory.mktemp("families")
    for case in HERE:
        small_families.make_small(case.small, folder / f"{case.small}.safetensors")
    return folder


@pytest.fixture(scope="module")
def load(files):
    """A small model, loaded once for each type."""
    loaded = {}

    def load(case, dtype=torch.float32):
        if (case.small, dtype) not in loaded:
            path = files / f"{case.small}.safetensors"
            loaded[case.small, dtype] = small_families.load_small(case.small, path, dtype)
        return loaded[case.small, dtype]

    return load


def own(case):
    """Whether a case has something of its own without references: the first of a family, or one that knows of none."""
    return not case.another or case.reference is None


def same_effect(ours, expected, plain, tolerance=1e-3):
    effect = (expected - plain).abs().max()
    assert effect > 1e-3
    assert (ours - expected).abs().max() <= tolerance * effect + 1e-6


@MODELS
def test_the_stock_loader_detects_it(case, files, load):
    model = load(case)
    assert (files / f"{case.small}.safetensors").stat().st_size < 10e6
    kind = type(model.model.diffusion_model)
    assert f"{kind.__module__}.{kind.__qualname__}" == small_families.SMALL[case.small].kind
    assert find_model(model).family.name == case.family


# cfg, pictures, length of the negative prompt, steps, the type, and how close. More steps than one say once what they
# say: whether a step knows what is left of the one before.
RUNS = [
    ("identity", 3.0, 2, 14, 2, torch.float32, 1e-3),
    ("softened", 3.0, 2, 9, 1, torch.float32, 1e-3),
    ("identity + text", 3.0, 1, 5, 1, torch.float32, 1e-3),
    ("mean", 3.0, 2, 9, 1, torch.bfloat16, 0.2),
]


@pytest.mark.parametrize("negative, cfg, batch, length, steps, dtype, tolerance", RUNS)
@FIRST
def test_attention_is_guided_as_the_oracle_does_it(case, load, negative, cfg, batch, length, steps, dtype, tolerance):
    model, prompts = load(case, dtype), (prompt(case, 1), prompt(case, 2, tokens=length))
    sampling = (*prompts, batch, cfg, steps)
    ours = sample(case, guided(model, blocks="1-3", negative=negative, temperature=2.0), *sampling)
    with guided_in_attention(case, (1, 2, 3), negative).at_work() as oracle:
        expected = sample(case, model, *sampling)
    assert {block for block, _ in oracle.calls} == {1, 2, 3}
    same_effect(ours, expected, sample(case, model, *sampling), tolerance)


def test_every_negative_is_tried():
    assert {run[0] for run in RUNS} == set(NEGATIVE.options)


@REFERENCES
def test_references_are_left_alone(case, load):
    """With the negative that looks at the text as well, where the sequence has it."""
    model, prompts = load(case), (prompt(case, 1, **case.reference), prompt(case, 2, 12, **case.reference))
    sampling = (*prompts, case.at_most(2, True), 3.0, 1)
    ours = sample(case, guided(model, blocks="1-3", negative="identity + text"), *sampling)
    with guided_in_attention(case, (1, 2, 3), "identity + text", case.behind, case.ahead).at_work():
        expected = sample(case, model, *sampling)
    same_effect(ours, expected, sample(case, model, *sampling))


@FIRST
def test_scale_0_is_the_plain_model_to_the_bit(case, load):
    sampling = (prompt(case, 1), prompt(case, 2), 1, 3.0, 1)
    plain = sample(case, load(case), *sampling)
    for inputs in ({"scale": 0.0}, {"blocks": "1:0"}):
        assert torch.equal(sample(case, guided(load(case), **inputs), *sampling), plain)


def in_parts(apply_model, given):
    """A model function wrapper that runs both conditions apart, and does not say which is which."""
    x, t, rows = given["input"], given["timestep"], (slice(0, 1), slice(1, 2))
    return torch.cat([apply_model(x[own], t[own], **of_rows(given["c"], own)) for own in rows])


@FIRST
def test_blocks_count_as_reached_where_nothing_was_to_be_guided(case, load, caplog):
    caplog.set_level("INFO", logger="nag_pag_flux")
    prompts = prompt(case, 1), prompt(case, 2)
    sample(case, guided(load(case), blocks="1-3", start_percent=0.98, end_percent=0.99), *prompts)
    assert "no step of this sampling lay between" in caplog.text
    if case.pictures > 1:
        model = load(case).clone()
        model.set_model_unet_function_wrapper(in_parts)
        sample(case, guided(model, blocks="1-3"), *prompts, 1, 3.0)
        assert "4 of 4 forwards not guided" in caplog.text
    assert "never reached" not in caplog.text


@FIRST
def test_a_packs_class_with_a_forward_of_its_own_is_refused(case, load, monkeypatch):
    """Nunchaku's Qwen-Image, for instance, calls attention without transformer_options."""
    model = load(case)
    kind, packs = type(model.model.diffusion_model), {"__module__": "some_pack.models"}
    name = "_forward" if hasattr(kind, "_forward") else "forward"
    forwards = type("Forwards", (), {**packs, name: getattr(kind, name)})
    for bases, refused in (((forwards, kind), True), ((type("Loads", (), packs), kind), False)):
        monkeypatch.setattr(model.model.diffusion_model, "__class__", type("Theirs", bases, packs))
        text = inspect_model(model, "auto")
        assert ("its class Theirs comes from some_pack.models, not from ComfyUI" in text) == refused
        assert ("works here: reach prediction, with a negative prompt" in text) == refused


VARIANTS = [
    *(("wan.model", name) for name in ("VaceWanModel", "CameraWanModel", "WanModel_S2V")),
    ("wan.model_animate", "AnimateWanModel"),
]


@pytest.mark.parametrize("module, name", VARIANTS)
def test_variants_with_a_class_of_their_own_are_refused_by_name(load, monkeypatch, module, name):
    model = load(next(case for case in HERE if case.small == "Wan 2.1"))
    kind = getattr(importlib.import_module(f"comfy.ldm.{module}"), name)
    monkeypatch.setattr(model.model.diffusion_model, "__class__", kind)
    with pytest.raises(ValueError, match=f"its class is {name}. That works with: .*Wan 2.1 and 2.2"):
        guided(model)
    guided(model, reach="prediction", blocks="auto", negative_prompt="sampler's")


@FIRST
def test_two_nodes_are_one_on_the_blocks_of_both(case, load):
    sampling = prompt(case, 1), prompt(case, 2), 1, 3.0
    both = sample(case, guided(load(case), blocks="1, 2"), *sampling)
    for first, later in (("1", "2"), ("2", "1")):
        stacked = guided(guided(load(case), blocks=first), blocks=later)
        assert torch.equal(sample(case, stacked, *sampling), both)


@FIRST
def test_names_of_blocks(case, load):
    model = load(case)
    bare = sample(case, guided(model, blocks="2"), prompt(case, 1), prompt(case, 2), steps=1)
    for name in case.names:
        found = sample(case, guided(model, blocks=name), prompt(case, 1), prompt(case, 2), steps=1)
        assert torch.equal(found, bare), name
    with pytest.raises(ValueError, match=case.missing):
        guided(model, blocks="60")
    other = "layers.2" if case.singles else "single_blocks.2"
    with pytest.raises(ValueError, match=f'"{other}" is no block of this model: .* has 2 or {case.names[0]}'):
        guided(model, blocks=other)


@FIRST
def test_inspect_says_what_works(case, load):
    text = inspect_model(load(case), "auto")
    assert f"auto is: {case.kind}blocks 1, 2, 3" in text and f'"auto" guides: {case.kind}blocks 1, 2, 3' in text
    assert f"blocks: 4{f' double, {case.singles} single' if case.kind else ''}\n" in text
    assert f"works here: reach {', '.join(case.reaches)}" in text


# Renewal every so many steps, and whether with references.
BRANCHES = [
    *((case, 1, False) for case in WITH_BRANCHES if own(case)),
    *((case, 2, False) for case in WITH_BRANCHES if not case.another),
    *((case, 1, True) for case in WITH_BRANCHES if case.reference is not None),
]


@pytest.mark.parametrize("case, every, extra", BRANCHES, ids=str)
def test_a_branch_is_the_hosts_own_forward_disturbed(case, load, every, extra):
    model, behind, ahead = load(case), case.behind if extra else 0, case.ahead if extra else 0
    extra = case.reference if extra else {}
    # Beside references both prompts are of one length, so that the branch has a part of a batch's rows.
    length, batch, cfg, steps = (14, 2, 3.0, 1) if every == 1 else (14, 1, 1.0, 4)
    if extra:
        length = 9 if case.rows > 1 else 14
    batch = case.at_most(batch, extra)
    sampling = prompt(case, 1, **extra), prompt(case, 2, length, **extra), batch, cfg, steps
    ours = guided(model, blocks="1-2", reach_blocks=1, perturbation=0.5, renew_every=every)
    disturbed = disturbed_attention(case, (1, 2), "identity", 0.5, behind)
    oracle = SecondForward(case, model, 2, disturbed=disturbed, every=every, ahead=ahead)
    expected, plain = (sample(case, one, *sampling) for one in (oracle.patched(model), model))
    assert oracle.computed == steps // every
    same_effect(sample(case, ours, *sampling), expected, plain)


# The length of the negative prompt, pictures, and steps; beside single blocks the branch may end before them.
CARRIED = [
    *((case, "output", False, 5, 2, 2) for case in WITH_BRANCHES if own(case)),
    *((case, "double blocks", False, 14, 1, 1) for case in WITH_BRANCHES if case.singles and not case.another),
    *((case, "output", True, 14, min(2, case.rows), 1) for case in WITH_BRANCHES if case.reference is not None),
]


@pytest.mark.parametrize("case, reach, extra, length, batch, steps", CARRIED, ids=str)
def test_a_negative_prompt_is_carried_as_its_own_forward_would(case, load, reach, extra, length, batch, steps):
    model, negative = load(case), prompt(case, 3, length)
    inputs = {"perturbation": 0.0, "reach": reach, "renew_every": 1, "negative_prompt": "sampler's"}
    sampling = (prompt(case, 1, **(case.reference if extra else {})), negative, case.at_most(batch, extra), 1.0, steps)
    ours = sample(case, guided(model, **inputs), *sampling)
    merge = case.last if reach == "output" else 3
    oracle = SecondForward(case, model, merge, negative=negative, ahead=case.ahead if extra else 0)
    expected, plain = (sample(case, one, *sampling) for one in (oracle.patched(model), model))
    same_effect(ours, expected, plain)


def test_where_all_frames_are_given_it_is_said_and_the_plain_video_drawn(load, caplog):
    cases = [case for case in HERE if case.small in ("HunyuanVideo", "Kandinsky 5") and case.given]
    for case in cases:
        caplog.clear()
        text = {**case.of_text, "concat_mask": torch.zeros(1, 1, 1, 6, 10)}
        one = dataclasses.replace(case, latent=(16, 1, 6, 10), mask=noise_mask(0), of_text=text)
        sampling = prompt(one, 1), prompt(one, 2), 1, 1.0, 1
        assert torch.equal(sample(one, guided(load(one), blocks="1"), *sampling), sample(one, load(one), *sampling))
        assert "without guidance: ValueError: all frames are given, so that there is none to guide" in caplog.text


@pytest.mark.parametrize("case", [case for case in HERE if case not in WITH_BRANCHES and not case.another], ids=str)
def test_a_reach_that_does_not_work_is_refused_with_those_that_do(case, load):
    for inputs in ({"reach": "output"}, {"reach_blocks": 1}, {"reach": "output", "negative_prompt": "sampler's"}):
        with pytest.raises(ValueError, match=f"with {case.family} only reach 'attention' and 'prediction' work"):
            guided(load(case), **inputs)
    guided(load(case), reach="output", scale=0.0)


@FIRST
def test_no_warning_speaks_of_flux(case, load, caplog, monkeypatch):
    """A forward that ends after two blocks."""
    model, stack = load(case), case.stack
    ours, modules = guided(model, blocks="1-3"), model.model.diffusion_model._modules
    monkeypatch.setitem(modules, stack, modules[stack][:2])
    sample(case, ours, prompt(case, 1), prompt(case, 2))
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{case.kind}block 2, {case.kind}block 3 never reached" in said and "FLUX" not in said
    assert ("an attention override" in said) == (case not in WITH_BRANCHES and case.small != "LTX-2")


class TestMasksOfQwenImage:
    """The host gives a block no mask: it keeps the text's to itself, for all rows of the batch."""

    case = next(case for case in HERE if case.small == "Qwen-Image")

    def masked(self, seed, tokens=9):
        mask = torch.ones(1, tokens, dtype=torch.long)
        mask[:, 5:] = 0
        return prompt(self.case, seed, tokens, attention_mask=mask)

    def test_in_the_attention(self, load):
        sampling = (self.masked(1), self.masked(2), 2, 3.0)
        ours = sample(self.case, guided(load(self.case), blocks="1-3", negative="identity + text"), *sampling)
        plain = sample(self.case, load(self.case), *sampling)
        with guided_in_attention(self.case, (1, 2, 3), "identity + text").at_work():
            same_effect(ours, sample(self.case, load(self.case), *sampling), plain)
        assert not torch.equal(plain, sample(self.case, load(self.case), prompt(self.case, 1), *sampling[1:]))

    def test_in_a_branch(self, load):
        sampling = (self.masked(1), self.masked(2), 2, 3.0)
        ours = sample(self.case, guided(load(self.case), blocks="1-2", reach_blocks=1), *sampling)
        disturbed = disturbed_attention(self.case, (1, 2), "identity", 1.0)
        oracle = SecondForward(self.case, load(self.case), 2, disturbed=disturbed, every=4)
        expected = sample(self.case, oracle.patched(load(self.case)), *sampling)
        same_effect(ours, expected, sample(self.case, load(self.case), *sampling))

    def test_with_a_negative_prompt_it_is_said(self, load, caplog):
        model = guided(load(self.case), reach="output", perturbation=0.0, negative_prompt="sampler's")
        sampling = (self.masked(1), prompt(self.case, 2))
        assert torch.equal(sample(self.case, model, *sampling), sample(self.case, load(self.case), *sampling))
        assert "a prompt has an attention mask, and Qwen-Image blocks take none with a negative prompt" in caplog.text


class Residuals(ControlBase):
    """Of a ControlNet that adds the same after every block but the last."""

    def __init__(self, case, features):
        super().__init__()
        self.residual = 0.3 * some(case.tokens, features, seed=30)

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        return {"output": 3 * [self.residual.expand(len(x_noisy), -1, -1)]}

    def get_models(self):
        return []


def test_a_controlnets_residuals_reach_a_branch_of_sd3(load):
    """The host adds them in place to what a block returned."""
    case = next(case for case in HERE if case.small == "SD 3.5 Medium")
    control = {"control": Residuals(case, 128), "control_apply_to_uncond": True}
    sampling = prompt(case, 1, **control), prompt(case, 2, 14, **control), 2, 3.0
    ours = guided(load(case), blocks="1", reach_blocks=1, renew_every=1)
    oracle = SecondForward(case, load(case), 2, disturbed=disturbed_attention(case, (1,), "identity", 1.0))
    expected, plain = (sample(case, one, *sampling) for one in (oracle.patched(load(case)), load(case)))
    same_effect(sample(case, ours, *sampling), expected, plain)
    assert not torch.equal(plain, sample(case, load(case), prompt(case, 1), prompt(case, 2, 14), 2, 3.0))


def test_the_page_lists_every_family():
    rows = [line.split(" | ") for line in (REPO / "docs/families.md").read_text().splitlines() if line.startswith("| ")]
    named = {row[0].strip("| "): row for row in rows[1:]}
    assert list(named) == [family.name for family in FAMILIES]
    tested = {case.family for case in CASES}
    for family in FAMILIES:
        _, models, names, reaches, evidence = named[family.name]
        kinds = [
            ", ".join(f"`{name}`" for name in (prefix + "8", *(name.replace("#", "8") for name in kind.names)))
            for prefix, kind in zip(("", "s"), family.naming.kinds, strict=False)
        ]
        assert (models, names, reaches) == (family.models, "; ".join(kinds), ", ".join(family.reaches))
        if family.name != "FLUX":
            assert family.name in tested
            assert evidence.rstrip(" |") == "correct by oracle on small random weights; never measured on pictures"


def test_where_ltx_2_makes_only_sound_nothing_is_guided(load):
    """A block's first attention is the sound's then."""
    case = next(case for case in HERE if case.small == "LTX-2")
    model, sampling = load(case).clone(), (prompt(case, 1), prompt(case, 2), 1, 3.0)
    model.model_options["transformer_options"]["run_vx"] = False
    assert torch.equal(sample(case, guided(model), *sampling), sample(case, model, *sampling))


def test_the_readme_has_every_family_in_the_row_of_what_reaches_it():
    rows = [line.strip("| ").split(" | ") for line in (REPO / "README.md").read_text().splitlines()]
    listed = {row[1]: row[0].split(", ") for row in rows if row[0].startswith(("Qwen-Image,", "Z-Image,"))}
    for family in FAMILIES[1:]:
        names = listed["all" if "output" in family.reaches else "`prediction`, `attention`"]
        assert set(family.name.split(" and ")) <= set(names), family.name
        assert all(name in MODEL.does for name in family.name.split(" and "))


def test_each_layer_of_the_text_of_lens_has_a_norm_of_its_own(load, monkeypatch):
    """Which all ones in a small model would not tell apart."""
    for case in (case for case in HERE if case.small == "Lens" and not case.another):
        model, negative = load(case), prompt(case, 3, 5)
        for place, norm in enumerate(model.model.diffusion_model.txt_norm):
            monkeypatch.setitem(norm._parameters, "weight", torch.nn.Parameter(norm.weight * (1 + place)))
        ours = guided(model, perturbation=0.0, reach="output", renew_every=1, negative_prompt="sampler's")
        oracle = SecondForward(case, model, case.last, negative=negative)
        ours, expected, plain = (
            sample(case, one, prompt(case, 1), negative) for one in (ours, oracle.patched(model), model)
        )
        same_effect(ours, expected, plain)


AREAS = {"Qwen-Image": (8, 8, 0, 0), "Lens": (4, 4, 0, 0)}


@pytest.mark.parametrize("case", [case for case in HERE if case.small in AREAS and not case.another], ids=str)
def test_a_negative_prompt_stands_behind_each_size_of_picture(case, load):
    """An area has a size of its own, on which the text's places hang: which of two comes first changes nothing."""
    ours = guided(load(case), perturbation=0.0, reach="output", renew_every=1, negative_prompt="sampler's")
    whole, part = prompt(case, 1), prompt(case, 2, area=AREAS[case.small], strength=1.0)
    one, other = (sample(case, ours, both, prompt(case, 3), steps=1) for both in (whole + part, part + whole))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


class TestKeyframesOfLTXV:
    def test_they_are_not_the_first_frames_also_where_the_whole_video_is_given(self):
        (family,) = (family for family in FAMILIES if family.name == "LTXV")
        mask = noise_mask(0, 0, 0, 0.4).expand(1, 1, 4, 5, 7)
        assert family.given_frames({"denoise_mask": mask, **keyframe(1.0)}) == 0
        assert family.given_frames({"denoise_mask": mask}) == 3


class TestSingleBlocksOfAuraFlow:
    """The host does not say where the text ends."""

    case = next(case for case in HERE if case.small == "AuraFlow")

    @pytest.mark.parametrize("negative", ["identity", "identity + text"])
    def test_alone(self, load, negative):
        model, sampling = load(self.case), (prompt(self.case, 1), prompt(self.case, 2, 12), 2, 3.0, 1)
        ours = sample(self.case, guided(model, blocks="s0-1", negative=negative), *sampling)
        with guided_in_attention(self.case, (("single", 0), ("single", 1)), negative).at_work():
            expected = sample(self.case, model, *sampling)
        same_effect(ours, expected, sample(self.case, model, *sampling))

    @pytest.mark.parametrize("blocks, disturbed", [("s0", [("single", 0)]), ("3, s0", [3, ("single", 0)])])
    def test_in_a_branch(self, load, blocks, disturbed):
        model, sampling = load(self.case), (prompt(self.case, 1), prompt(self.case, 2, 12), 1, 3.0, 1)
        ours = guided(model, blocks=blocks, reach="output", renew_every=1)
        branch = disturbed_attention(self.case, disturbed, "identity", 1.0)
        oracle = SecondForward(self.case, model, self.case.last, disturbed=branch)
        expected, plain = (sample(self.case, one, *sampling) for one in (oracle.patched(model), model))
        same_effect(sample(self.case, ours, *sampling), expected, plain)


class TestVideos:
    case = next(case for case in HERE if case.small == "Wan 2.1")

    def test_a_records_map_shows_the_frames_below_one_another(self, load):
        record = Record()
        model = record_model(guided(load(self.case), blocks="2"), record)
        sample(self.case, model, prompt(self.case, 1), prompt(self.case, 2), 2, 3.0)
        (recording,) = record.recordings
        assert [tuple(found.shape) for found in recording.maps.values()] == [(3 * 5, 7)]
        assert recording.blocks() == [(0, "block 2")] and len(recording.rows) == 2

    @pytest.mark.parametrize("frames", [3, 12])
    def test_memory_stays_within_one_activation_however_many_frames(self, load, frames):
        longer = dataclasses.replace(self.case, latent=(16, frames, 9, 13))
        model, prompts, peaks = load(self.case), (prompt(self.case, 1), prompt(self.case, 2)), []
        for one in (model, model, guided(model, blocks="1-3")):
            with LiveBytes() as live:
                sample(longer, one, *prompts, steps=1)
            peaks.append(live.peak)
        assert peaks[2] - peaks[1] <= 1.05 * frames * 5 * 7 * 64 * 4


class TestHunyuan:
    case, frame, video, picture, *_ = (case for case in HERE if "Hunyuan" in case.family)
    carried = {"perturbation": 0.0, "renew_every": 1, "negative_prompt": "sampler's"}  # noqa: RUF012

    def masked(self, seed, tokens=9):
        """The host takes a mask for one row, and where nothing else stands in the text."""
        mask = torch.ones(1, tokens, dtype=torch.long)
        mask[:, 5:] = 0
        return prompt(self.case, seed, tokens, attention_mask=mask)

    def test_single_blocks_are_guided_beside_double_ones(self, load):
        for case, extra in ((self.case, self.case.reference), (self.frame, {}), (self.picture, {})):
            sampling = prompt(case, 1, **extra), prompt(case, 2, 12), case.at_most(2, extra), 3.0, 1
            ours = sample(case, guided(load(case), blocks="3, s1", negative="identity + text"), *sampling)
            blocks = 3, ("single", 1)
            with guided_in_attention(case, blocks, "identity + text", ahead=case.ahead).at_work() as oracle:
                expected = sample(case, load(case), *sampling)
            assert {block for block, _ in oracle.calls} == set(blocks)
            same_effect(ours, expected, sample(case, load(case), *sampling))

    def test_a_branch_from_a_single_block(self, load):
        for case in (self.frame, self.picture):
            sampling = prompt(case, 1), prompt(case, 2, 12), 1, 3.0, 1
            ours = guided(load(case), blocks="s0", reach_blocks=1, renew_every=1)
            disturbed = disturbed_attention(case, [("single", 0)], "identity", 1.0)
            oracle = SecondForward(case, load(case), ("single", 1), disturbed=disturbed)
            expected, plain = (sample(case, one, *sampling) for one in (oracle.patched(load(case)), load(case)))
            same_effect(sample(case, ours, *sampling), expected, plain)

    @pytest.mark.parametrize("negative, blocks", [("identity + text", "1-3"), ("softened", "1-3"), ("identity", "1-2")])
    def test_a_prompt_with_an_attention_mask(self, load, negative, blocks):
        case, model, sampling = self.case, load(self.case), (self.masked(1), prompt(self.case, 2, 12), 1, 3.0)
        if blocks == "1-3":
            ours, oracle = guided(model, blocks=blocks, negative=negative, temperature=2.0), None
            with guided_in_attention(case, (1, 2, 3), negative).at_work():
                expected = sample(case, model, *sampling)
        else:
            ours, disturbed = (
                guided(model, blocks=blocks, reach_blocks=1),
                disturbed_attention(case, (1, 2), negative, 1),
            )
            oracle = SecondForward(case, model, 2, disturbed=disturbed, every=4)
            expected = sample(case, oracle.patched(model), *sampling)
        plain = sample(case, model, *sampling)
        same_effect(sample(case, ours, *sampling), expected, plain)
        assert not torch.equal(plain, sample(case, model, prompt(case, 1), *sampling[1:]))

    def test_a_mask_with_a_negative_prompt_is_said(self, load, caplog):
        case, model = self.case, load(self.case)
        for prompts in ((self.masked(1), prompt(case, 2)), (prompt(case, 1), self.masked(2))):
            caplog.clear()
            ours = guided(model, reach="output", **self.carried)
            assert torch.equal(sample(case, ours, *prompts), sample(case, model, *prompts))
            assert "a prompt has an attention mask, and HunyuanVideo and Hunyuan Image blocks take none" in caplog.text

    @pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-3), (torch.bfloat16, 0.2)])
    def test_a_negative_prompt_with_byt5_of_its_own_or_none(self, load, dtype, tolerance):
        """At cfg 3 it stands in one batch with the prompt, whose rows alone are guided, and which has a picture."""
        other, none = {"conditioning_byt5small": torch.ones(1, 2, 1472)}, {"conditioning_byt5small": None}
        for case, extra, byt5 in ((self.video, self.video.reference, none), (self.picture, {}, other)):
            model, negative = load(case, dtype), prompt(case, 3, 9, **byt5)
            sampling = prompt(case, 1, **extra), prompt(case, 2, 9, **extra), 2, 3.0, 1
            ours = guided(model, reach="output", negative_conditioning=negative, **self.carried)
            oracle = SecondForward(case, model, case.last, negative=negative)
            expected, plain = (sample(case, one, *sampling) for one in (oracle.patched(model), model))
            same_effect(sample(case, ours, *sampling), expected, plain, tolerance)

    def test_byt5_counts_in_the_length_of_a_text(self, load, caplog):
        case = self.picture
        model = load(case).clone()
        model.set_model_attn1_patch(lambda q, k, v, pe, attn_mask, extra_options: {})
        negative = prompt(case, 3, 9, conditioning_byt5small=torch.ones(1, 2, 1472))
        sampling = prompt(case, 1), prompt(case, 2), 1, 3.0
        ours = guided(model, reach="output", negative_conditioning=negative, **self.carried)
        assert torch.equal(sample(case, ours, *sampling), sample(case, model, *sampling))
        assert "the prompt has 13 tokens and the negative one 11. Set cfg to 1.0" in caplog.text

    def test_a_model_without_single_blocks_says_so(self, load):
        with pytest.raises(ValueError, match="single block 1 does not exist: .* double blocks 0 to 3 and no single"):
            guided(load(self.video), blocks="s1")
        text = inspect_model(load(self.video), "auto")
        assert "blocks: 4 double, 0 single\n" in text and "(of which double blocks is output)" in text
        assert "(of which" not in inspect_model(load(self.picture), "auto")


MEETING = {family.name for family in FAMILIES if family.joint and not family.why_no_branch}


@pytest.mark.parametrize("case", [case for case in WITH_BRANCHES if case.family in MEETING and own(case)], ids=str)
def test_what_every_block_holds_is_as_large_as_the_host_is_told(case, load):
    model, held, plans = load(case).clone(), [], []

    def look(args):
        options = args["model_options"]["transformer_options"]
        plans[:] = options[PLANS]
        kept = options[plans[0].run_key].differences.values()
        held.append(sum(one.nbytes for each in kept for one in each.differences.values()))
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(look)
    inputs = {"blocks": "all", "negative_prompt": "sampler's", "perturbation": 0.0, "renew_every": 2}
    sample(case, guided(model, **inputs), prompt(case, 1), prompt(case, 2), batch=1, steps=3)
    told = held_bytes(plans[0], model, (1, *case.latent))
    assert max(held) == told > 0

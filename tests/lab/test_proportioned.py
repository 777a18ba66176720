"""The small FLUX in FLUX.1's proportions: what is trained is what the host computes."""

from dataclasses import replace

import pytest
import torch
from nag_pag_flux.lab.in_host import enter_host
from nag_pag_flux.lab.toy import growth, open_shapes, pictures, proportioned, shapes, students, teachers, training
from nag_pag_flux.lab.toy.flux import Sizes
from nag_pag_flux.lab.toy.pictures import Pictures
from nag_pag_flux.lab.toy.proportioned import ProportionedFlux
from safetensors.torch import load_file, save_file

TINY = Sizes(hidden=128, double_blocks=1, single_blocks=2)
WIDE = replace(TINY, hidden=256)
RECIPE = teachers.Recipe(TINY, steps=3, half_steps=2, batch=2, half_batch=3, warm_up=2)
GROWTH = teachers.Growth(RECIPE, replace(RECIPE, sizes=WIDE, half_steps=0))
DISTILLATION = students.Distillation(replace(RECIPE, half_steps=0))
CAPTIONS = ["a red ring top left, a blue cross bottom right, on grey", "red", "a thing, on white", "a disc"]


@pytest.fixture(scope="module")
def learned():
    scenes = shapes.random_scenes(4, torch.Generator().manual_seed(1))
    latents = shapes.to_latent(shapes.render(scenes)).bfloat16()
    return Pictures("few", "0", latents, training.caption_ids([*CAPTIONS, ""]))


def random_model(sizes, distilled):
    """Weights at random everywhere, so that nothing is the identity."""
    generator = torch.Generator().manual_seed(2)
    model = ProportionedFlux(sizes, distilled)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("distilled", [False, True])
def test_the_host_computes_the_same(tmp_path, learned, distilled):
    """Two heads; read by the stock loader as FLUX.1 [dev]."""
    enter_host()
    import comfy.sd

    model = random_model(WIDE, distilled)
    save_file({k: v.contiguous() for k, v in model.state_dict_for_host().items()}, str(tmp_path / "flux.safetensors"))
    loaded = comfy.sd.load_diffusion_model(str(tmp_path / "flux.safetensors"), model_options={"dtype": torch.float32})
    theirs = loaded.model.diffusion_model
    assert type(loaded.model.model_config).__name__ == "Flux" and theirs.num_heads == 2
    words = pictures.words_of(learned.ids)
    table, rows = pictures.Table(learned.ids, words), torch.arange(5)
    x = torch.randn(5, 16, 16, 16, generator=torch.Generator().manual_seed(3))
    sigma, guidance = torch.linspace(0.1, 1, 5), torch.linspace(1, 4, 5)
    context = torch.nn.functional.pad(pictures.embed(learned.ids, words), (0, 4096 - 768))
    with torch.no_grad():
        ours = model(x, sigma, table(rows), guidance if distilled else None)
        other = theirs(x, sigma, context, torch.zeros(5, 768), guidance)
    assert table(rows).shape == (5, words + 1, 768) and torch.equal(table(rows), pictures.embed(learned.ids, words))
    assert float((ours - other).abs().max()) < 5e-5 < float(ours.std()) / 100


def test_no_word_of_a_caption_is_cut_and_one_token_of_padding_is_left(learned):
    words = pictures.words_of(learned.ids)
    padding = learned.ids[-1, -1]
    assert (learned.ids[:, words:] == padding).all() and (learned.ids[:, words - 2] != padding).any()
    embedded = pictures.embed(learned.ids, words)
    assert torch.equal(embedded[0, -1], embedded[-1, -1])


def test_a_picture_of_half_the_size_is_the_mean_of_its_pixels():
    picture = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(4))
    latents = shapes.to_latent(picture)
    latents[:, 12:] = 3.0
    small = teachers.halved(latents)
    by_hand = shapes.to_latent(torch.nn.functional.avg_pool2d(picture, 2))
    assert torch.allclose(small[:, :12], by_hand[:, :12], atol=1e-5) and (small[:, 12:] == 3.0).all()


def test_patches_of_a_smaller_picture_lie_in_the_middle_of_those_they_cover():
    whole, small = (proportioned.rotation_of(3, size, size, stride) for size, stride in ((8, 1), (4, 2)))
    assert torch.allclose(whole[:3], torch.ones(3, 64, dtype=torch.complex64)) and len(whole) == 3 + 64
    # The turn of the patch in row 1, column 2 is the product's root: half way between rows 2 and 3, columns 4 and 5.
    between = whole[3 + 2 * 8 + 4] * whole[3 + 3 * 8 + 5]
    assert torch.allclose(small[3 + 1 * 4 + 2] ** 2, between, atol=1e-5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, learned):
    """The files of two trainings that nothing stopped, on seeds 7 and 8."""
    folder = tmp_path_factory.mktemp("whole")
    return [teachers.train(learned, seed, GROWTH, folder / f"{seed}.safetensors") for seed in (7, 8)]


@pytest.mark.parametrize("stopped_at", [(128, 1), (256, 2)])
def test_a_training_that_was_stopped_ends_in_the_same_bytes(tmp_path, learned, whole, monkeypatch, stopped_at):
    update = teachers.Training.update

    def stop(self, loss, step):
        update(self, loss, step)
        width = self.model.sizes.hidden
        self.keep(tmp_path / f"stopped{'-narrow' if width == 128 else ''}.progress", step + 1)
        if (width, step) == stopped_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(teachers.Training, "update", stop)
    with pytest.raises(KeyboardInterrupt):
        teachers.train(learned, 7, GROWTH, tmp_path / "stopped.safetensors")
    monkeypatch.setattr(teachers.Training, "update", update)
    again = teachers.train(learned, 7, GROWTH, tmp_path / "stopped.safetensors")
    same, other = (path.read_bytes() for path in whole)
    assert again.read_bytes() == same != other
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".safetensors"]


def test_a_widened_model_computes_the_same_and_its_two_heads_part(learned):
    narrow = random_model(TINY, True)
    wide = growth.widened(narrow, WIDE, torch.Generator().manual_seed(8))
    table, generator = pictures.Table(learned.ids, pictures.words_of(learned.ids)), torch.Generator().manual_seed(9)
    x, sigma, scale = torch.randn(2, 16, 8, 8, generator=generator), torch.tensor([0.4, 0.9]), torch.tensor([1.0, 3.0])
    ours, theirs = (model(x, sigma, table(torch.arange(2)), scale) for model in (wide, narrow))
    assert float((ours - theirs).abs().max()) < 1e-4 < float(theirs.std()) / 100
    ours.square().mean().backward()
    first, second = wide.single_blocks[0].linear1.weight.grad[:256].chunk(2)  # of q, a head each
    assert float((first - second).abs().max()) > 0.1 * float(first.abs().max())
    with pytest.raises(ValueError, match="twice the width"):
        growth.widened(narrow, replace(WIDE, single_blocks=3), generator)


def test_rates_rise_stay_and_fall():
    falling, constant = teachers.Recipe(steps=100, warm_up=10, fall=0.5), teachers.Recipe(steps=100, warm_up=10, fall=0)
    assert [falling.rate(step) for step in (0, 9, 50, 75, 99)] == pytest.approx([0.1, 1, 1, 0.5, 0.02])
    assert [constant.rate(step) for step in (0, 9, 50, 99)] == pytest.approx([0.1, 1, 1, 1])


def test_a_student_begins_as_its_teacher_and_learns_what_cfg_gives(tmp_path, learned):
    save_file(random_model(TINY, False).state_dict_for_host(), str(tmp_path / "teacher.safetensors"))
    teacher = ProportionedFlux.from_host(load_file(tmp_path / "teacher.safetensors"))
    assert not teacher.distilled
    batch = teachers.draw(learned, 0, 0, DISTILLATION.recipe)
    table, scale = pictures.Table(learned.ids, pictures.words_of(learned.ids)), torch.tensor([1.0, 3.0])
    wanted = students.guided(teacher, batch, table, scale, empty=4)
    with torch.no_grad():
        prompt, nothing = (teacher(batch.x, batch.sigma, table(r)) for r in (batch.rows, torch.tensor([4, 4])))
        student = ProportionedFlux(TINY, distilled=True)
        student.load_state_dict(teacher.state_dict(), strict=False)
        assert torch.equal(student(batch.x, batch.sigma, table(batch.rows), scale), prompt)
    assert torch.allclose(wanted[0], prompt[0], atol=1e-5)
    assert torch.allclose(wanted[1], 3 * prompt[1] - 2 * nothing[1], atol=1e-4)
    made = students.distil(tmp_path / "teacher.safetensors", learned, 0, DISTILLATION)
    trained = ProportionedFlux.from_host(load_file(made))
    assert trained.distilled and made.name.startswith("teacher-student-")
    with pytest.raises(ValueError, match="needs a guidance"):
        trained(batch.x, batch.sigma, table(batch.rows))


def test_scales_are_spread_over_what_a_student_is_to_learn():
    found = torch.cat([students.scales(256, step, 0, students.DISTILLATION) for step in range(4)])
    assert 1 <= float(found.min()) < 1.05 and 3.95 < float(found.max()) <= 4
    assert float(found.mean()) == pytest.approx(2.5, abs=0.1)


def test_a_set_without_the_empty_prompt_is_refused(learned):
    with pytest.raises(ValueError, match=r"4 pictures need ids of 5 × 77.*\(4, 77\)"):
        replace(learned, ids=learned.ids[:4])


# --- captions with parts left out ---


def test_all_told_is_the_scene_s_own_caption_and_parts_can_be_left_out():
    scene = shapes.random_scenes(8, torch.Generator().manual_seed(6))[0]
    everything = open_shapes.Told(((True, True, True),) * len(scene.things), True)
    assert open_shapes.caption(scene, everything) == scene.caption
    nothing = open_shapes.Told(((False, False, False),), False)
    assert open_shapes.caption(scene, nothing) == "a coloured thing some place"
    some = open_shapes.Told(((True, False, False), (False, True, True)), False)
    told = f"a {scene.caption.split()[1]} thing some place"
    assert open_shapes.caption(scene, some).startswith(told)


def test_every_word_keeps_its_place_whatever_is_left_out():
    """Tokens of each part, by the host's tokenizer; of the colours cyan alone has two."""
    ids = training.caption_ids([open_shapes.OPEN_COLOR, open_shapes.OPEN_SHAPE, open_shapes.OPEN_PLACE, "cyan"])
    known = training.caption_ids(["red", "ring", "bottom right", "red"])
    lengths = [[int((row != row[-1]).sum()) for row in rows] for rows in (ids, known)]
    assert lengths[0][:3] == lengths[1][:3] and lengths[0][3] == lengths[1][3] + 1


def test_each_part_is_left_out_about_as_often_as_said():
    generator = torch.Generator().manual_seed(9)
    scenes = shapes.random_scenes(600, generator)
    captions = [open_shapes.random_caption(scene, generator) for scene in scenes]
    alone = [caption for scene, caption in zip(scenes, captions, strict=True) if caption in open_shapes.parts(scene)]
    assert len(alone) / len(captions) == pytest.approx(open_shapes.ALONE, abs=0.04)
    grounds = sum("on " in caption for caption in captions) / len(captions)
    assert grounds == pytest.approx((1 - open_shapes.LEFT_OUT) * (1 - open_shapes.ALONE), abs=0.06)
    assert {"a red thing some place", "a coloured ring some place", "on tan"} & {*alone}

"""Scenes of emoji, their words and pictures; and how the vendors' drawings are fetched, with stand-ins for these."""

import base64
import hashlib
import io
import itertools
import json
import os
import re
import sys
import tarfile
import zipfile
from dataclasses import replace

import pytest
import torch
from drawn_emoji import stand_ins
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.lab import host
from nag_pag_flux.lab.toy import emoji, emoji_art, emoji_pool, training
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch.nn import functional


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def drawn(monkeypatch):
    drawings = stand_ins()
    monkeypatch.setattr(emoji, "drawings", lambda: drawings)
    return drawings


FOX = emoji.Scene(emoji.CONCEPTS.index("a fox"), 0, 0, 1, 1, 50.0, 50.0, 96.0)

# --- scenes and words ---


def test_a_caption_tells_all_parts_in_order():
    assert FOX.caption == "a fox, noto style, top left, large, on blue"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("concept",), "a fox"),
        ((), "an animal"),
        (("vendor", "ground"), "an animal, noto style, on blue"),
        (("ground", "size", "concept"), "a fox, large, on blue"),
    ],
)
def test_what_is_left_out_is_not_in_the_caption_and_a_kind_stands_for_its_concept(told, words):
    assert replace(FOX, told=told).caption == words


def test_there_are_some_hundred_concepts_each_once_with_a_name_of_its_own():
    assert len(emoji.CONCEPTS) == len(set(emoji.CONCEPTS)) == len(emoji.KIND_OF) == 108
    names = [emoji.NAMES.get(concept, emoji._name(concept)) for concept in emoji.CONCEPTS]
    assert len(set(names)) == 108 and set(emoji.NAMES) <= set(emoji.CONCEPTS)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", name) for name in names)
    assert emoji.KIND_NAMES[emoji.KIND_OF[emoji.CONCEPTS.index("a key")]] == "a tool"


def test_one_combination_in_eight_is_held_out_and_no_two_parts_meet_in_only_one_of_the_halves():
    every = list(itertools.product(*(range(len(names)) for names in emoji.PARTS.values())))
    held = {parts for parts in every if emoji.held_out(*parts)}
    assert len(held) / len(every) == pytest.approx(1 / emoji.HELD_OUT, rel=0.02)
    trained = set(every) - held
    for one, other in itertools.combinations(range(len(emoji.PARTS)), 2):
        pairs = {(parts[one], parts[other]) for parts in every}
        assert {(parts[one], parts[other]) for parts in held} == pairs
        assert {(parts[one], parts[other]) for parts in trained} == pairs


@pytest.mark.parametrize("new", [False, True])
def test_scenes_at_random_are_of_their_half_and_the_same_for_a_seed(new):
    scenes = emoji.random_scenes(60, seeded(), new)
    assert scenes == emoji.random_scenes(60, seeded(), new) != emoji.random_scenes(60, seeded(1), new)
    assert {emoji.held_out(s.concept, s.vendor, s.place, s.size, s.ground) for s in scenes} == {new}


def test_how_often_captions_leave_something_out():
    assert {scene.told for scene in emoji.random_scenes(50, seeded(), left_out=0)} == {tuple(emoji.PARTS)}
    assert {scene.told for scene in emoji.random_scenes(50, seeded(), left_out=1)} == {()}
    told = [len(scene.told) for scene in emoji.random_scenes(600, seeded())]
    assert sum(told) / len(told) == pytest.approx(5 * (1 - emoji.LEFT_OUT), abs=0.15)


@given(st.integers(0, 10_000))
def test_an_emoji_lies_whole_in_its_place(seed):
    (scene,) = emoji.random_scenes(1, seeded(seed))
    for centre, way in zip((scene.x, scene.y), tuple(emoji.PLACES.values())[scene.place], strict=True):
        assert scene.side / 2 <= centre <= emoji.SIZE - scene.side / 2
        assert (centre - emoji.SIZE / 2) * way > 8


# --- pictures ---


def test_a_picture_is_what_pillow_composes(drawn):
    """Where the drawing lies on whole pixels at its own size nothing is resampled."""
    ground = tuple(round(255 * value) for value in emoji.GROUNDS["blue"])
    expected = Image.new("RGBA", (emoji.SIZE, emoji.SIZE), (*ground, 255))
    own = Image.fromarray(drawn[FOX.concept, FOX.vendor].permute(1, 2, 0).contiguous().numpy(), "RGBA")
    expected.alpha_composite(own, (2, 2))
    found = (emoji.render([FOX])[0] * 255).permute(1, 2, 0)
    seen = torch.frombuffer(bytearray(expected.convert("RGB").tobytes()), dtype=torch.uint8)
    assert (found - seen.view(found.shape)).abs().max() < 2.01


def test_a_batch_is_its_pictures_one_by_one(drawn):
    scenes = emoji.random_scenes(5, seeded())
    torch.testing.assert_close(emoji.render(scenes), torch.cat([emoji.render([scene]) for scene in scenes]))


def test_a_small_one_is_the_large_one_made_smaller(drawn):
    def middle(side):
        layers = emoji.render_layers([replace(FOX, side=float(side), x=64.0, y=64.0)])
        return layers[:, :, 64 - side // 2 : 64 + side // 2, 64 - side // 2 : 64 + side // 2]

    large, small = functional.avg_pool2d(middle(96), 12), functional.avg_pool2d(middle(64), 8)
    assert (large - small).abs().max() < 0.02


def test_latents_hold_the_means_of_four_by_four_pixels(drawn):
    pictures = emoji.render(emoji.random_scenes(4, seeded()))
    latents = emoji.to_latent(pictures)
    assert latents.shape == (4, 16, 16, 16)
    torch.testing.assert_close(emoji.from_latent(latents), functional.avg_pool2d(pictures, 4))


def test_the_pool_is_made_once_of_what_is_trained_on(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path))
    monkeypatch.setattr(emoji_pool, "POOL", 6)
    ids = lambda captions: torch.tensor([[len(words)] * 77 for words in captions])  # noqa: E731
    monkeypatch.setattr(training, "caption_ids", ids)
    pool = emoji_pool.training_pool()
    scenes = emoji.random_scenes(6, seeded(emoji_pool.POOL_SEED))
    expected = emoji.to_latent(emoji.render(scenes)).bfloat16()
    assert torch.equal(pool["latents"], expected)
    assert torch.equal(pool["ids"], ids([*(scene.caption for scene in scenes), ""]))
    monkeypatch.setattr(emoji, "render", lambda scenes: pytest.fail("made again"))
    assert torch.equal(emoji_pool.training_pool()["latents"], expected)


# --- fetching ---


def archive(path, icons, **defaults):
    data = json.dumps({"icons": icons, **defaults}).encode()
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("package/icons.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return path


def pinned(path):
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


SQUARE = {"body": '<rect x="2" y="4" width="4" height="8"/>'}


def test_svg_takes_its_box_from_the_drawing_or_else_from_the_set(tmp_path):
    icons = {"one": SQUARE, "two": {**SQUARE, "width": 20, "left": -2}}
    first, second = emoji_art.svg_files(archive(tmp_path / "a.tgz", icons, width=16, height=32), ["two", "one"])
    assert 'viewBox="-2 0 20 32"' in first and 'viewBox="0 0 16 32"' in second
    assert SQUARE["body"] in first


def test_names_that_a_package_lacks_are_said(tmp_path):
    with pytest.raises(ValueError, match="a.tgz has no fox, bee$"):
        emoji_art.svg_files(archive(tmp_path / "a.tgz", {"one": SQUARE}), ["fox", "one", "bee"])


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    path = archive(tmp_path / "a.tgz", {"one": SQUARE})
    mine = replace(emoji_art.SETS["noto"], integrity=pinned(path))
    emoji_art.check(path, mine)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(host.HostError, match=r"@iconify-json/noto 1\.2\.9 has sha512 .* not the pinned"):
        emoji_art.check(path, mine)


def npm(tmp_path, monkeypatch, script):
    """A stand-in for npm, alone on the PATH but for the shell's own folder."""
    tool = tmp_path / "bin" / "npm"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")


def test_sets_are_asked_for_by_name_and_version_and_checked(tmp_path, monkeypatch):
    source = archive(tmp_path / "source.tgz", {"one": SQUARE})
    npm(tmp_path, monkeypatch, f'echo "$@" >> {tmp_path}/asked; cp {source} brought.tgz')
    sets = {name: replace(one, integrity=pinned(source)) for name, one in emoji_art.SETS.items()}
    monkeypatch.setattr(emoji_art, "SETS", sets)
    (tmp_path / "work").mkdir()
    found = emoji_art.fetch_sets(tmp_path / "work")
    assert list(found) == list(sets) and all(path.read_bytes() == source.read_bytes() for path in found.values())
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[-1] for line in asked] == [f"{one.package}@{one.version}" for one in sets.values()]


@pytest.mark.parametrize(
    ("script", "said"), [("echo no such package >&2; exit 1", "no such package"), ("true", "noto")]
)
def test_a_package_that_does_not_come_is_said(tmp_path, monkeypatch, script, said):
    npm(tmp_path, monkeypatch, script)
    (tmp_path / "work").mkdir()
    with pytest.raises(host.HostError, match=f"(?s)no @iconify-json/noto 1.2.9.*{said}|{said}"):
        emoji_art.fetch_sets(tmp_path / "work")


def test_without_npm_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(host.HostError, match="install npm"):
        emoji_art.fetch_sets(tmp_path)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A stand-in for the rasteriser where pip finds it, and nothing else."""
    path = tmp_path / "wheels" / "resvg_py-0.5.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("resvg_py.py", "def svg_to_bytes(svg_string, **options):\n    return [*svg_string.encode()]\n")
        file.writestr("resvg_py-0.5.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: resvg-py\nVersion: 0.5.0\n")
        file.writestr(
            "resvg_py-0.5.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("resvg_py-0.5.0.dist-info/RECORD", "")
    for name, value in (("CONFIG_FILE", os.devnull), ("NO_INDEX", "1"), ("FIND_LINKS", str(path.parent))):
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setattr(emoji_art, "PINS", tmp_path / "pins.txt")
    monkeypatch.delitem(sys.modules, "resvg_py", raising=False)
    yield path
    sys.modules.pop("resvg_py", None)


def test_the_rasteriser_comes_by_its_checksum_and_stays_out_of_the_environment(wheel, tmp_path):
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    emoji_art.PINS.write_text(f"resvg-py==0.5.0 --hash=sha256:{digest}\n")
    before = list(sys.path)
    assert emoji_art.fetch_rasteriser(tmp_path)("<svg/>", 8) == b"<svg/>"
    assert sys.path == before and (tmp_path / "resvg" / "resvg_py.py").exists()


def test_another_rasteriser_than_the_pinned_one_is_refused(wheel, tmp_path):
    emoji_art.PINS.write_text(f"resvg-py==0.5.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(host.HostError, match="(?s)no rasteriser.*Nothing was kept"):
        emoji_art.fetch_rasteriser(tmp_path)


def to_png(svg, side):
    """Rectangles alone, as an SVG viewer draws them."""
    left, top, width, height = (float(n) for n in re.search('viewBox="([^"]*)"', svg)[1].split())
    scale = side / max(width, height)
    x0, y0 = left - (max(width, height) - width) / 2, top - (max(width, height) - height) / 2
    image = Image.new("RGBA", (side, side))
    for x, y, w, h in re.findall('<rect x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"/>', svg):
        corner = (float(x) - x0) * scale, (float(y) - y0) * scale
        end = corner[0] + float(w) * scale - 1, corner[1] + float(h) * scale - 1
        ImageDraw.Draw(image).rectangle((*(round(n) for n in corner), *(round(n) for n in end)), fill="red")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(16, 16), (32, 16), (16, 32)])
def test_a_drawing_fills_its_square_on_its_longer_side(tmp_path, width, height):
    (svg,) = emoji_art.svg_files(archive(tmp_path / "a.tgz", {"one": SQUARE}, width=width, height=height), ["one"])
    (found,) = emoji_art.rasterise([svg], to_png)
    rows, columns = (torch.nonzero(found[3].any(axis))[:, 0] for axis in (1, 0))
    assert found.shape == (4, emoji_art.SIDE, emoji_art.SIDE) and found.dtype == torch.uint8
    assert (int(rows[0]), int(rows[-1])) == (0, emoji_art.SIDE - 1)  # four wide, eight high
    assert abs(int(columns[0]) - 24) <= 1 and abs(int(columns[-1]) - 71) <= 1


def test_a_drawing_of_nothing_is_refused():
    with pytest.raises(ValueError, match="without a pixel"):
        emoji_art.rasterise(['<svg viewBox="0 0 8 8"></svg>'], to_png)


def test_drawings_are_fetched_once_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGPAG_CACHE", str(tmp_path))
    made = {vendor: archive(tmp_path / f"{vendor}.tgz", {"fox": SQUARE, "bee": SQUARE}) for vendor in emoji.VENDORS}
    monkeypatch.setattr(emoji_art, "fetch_rasteriser", lambda folder: to_png)

    def no_network(folder):
        raise host.HostError("no network")

    monkeypatch.setattr(emoji_art, "fetch_sets", no_network)
    with pytest.raises(host.HostError, match="no network"):
        emoji_art.drawings(("fox", "bee"))
    assert not list(tmp_path.glob("emoji-*")) + list(tmp_path.glob("making-*"))
    monkeypatch.setattr(emoji_art, "fetch_sets", lambda folder: made)
    found = emoji_art.drawings(("fox", "bee"))
    assert found.shape == (2, len(emoji.VENDORS), 4, emoji_art.SIDE, emoji_art.SIDE)
    monkeypatch.setattr(emoji_art, "fetch_sets", no_network)
    (kept,) = tmp_path.glob("emoji-*")
    assert torch.equal(load_file(kept / "drawings.safetensors")["drawings"], emoji_art.drawings(("fox", "bee")))
    emoji_art._kept.cache_clear()
    assert torch.equal(found, emoji_art.drawings(("fox", "bee")))
    assert emoji_art.recipe_digest(("fox",)) != emoji_art.recipe_digest(("bee",))


# --- whose they are ---


def test_versions_and_checksums_are_pinned_and_no_host_is_named():
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", one.version) for one in emoji_art.SETS.values())
    assert all(len(base64.b64decode(one.integrity)) == 64 for one in emoji_art.SETS.values())
    first, *hashes = emoji_art.PINS.read_text().replace(" \\", "").splitlines()
    assert re.fullmatch(r"resvg-py==\d+\.\d+\.\d+", first)
    assert hashes and all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", line) for line in hashes)


def test_the_docs_say_the_licence_of_every_set():
    page = (host.REPO / "docs" / "emoji.md").read_text()
    for vendor, one in emoji_art.SETS.items():
        assert f"| {vendor} | `{one.package}` {one.version} | {one.author} | {one.licence} | {one.source} |" in page
        assert one.author in emoji_art.attribution() and one.licence in emoji_art.attribution()
    assert emoji_art.PINS.read_text().split()[0] in page
    assert f"{len(emoji.CONCEPTS)} concepts" in page

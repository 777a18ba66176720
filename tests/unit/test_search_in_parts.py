"""nagpag calibrate: its parts draw what one Calibrate would, and what they found is put together."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nag_pag_flux.nagpag.inputs.calibration import CALIBRATE
from nag_pag_flux.nagpag.service.client.sweep import calibration
from nag_pag_flux.nagpag.service.client.sweep.board import Drawn
from nag_pag_flux.nagpag.service.client.sweep.kept import Folder
from nag_pag_flux.nagpag.service.client.sweep.ways import BadPlan


def search(prompts, batch, pictures, seed=0):
    own = {**CALIBRATE.defaults, "pictures": pictures, "seed": seed}
    settings = {item.name: item.default for item in calibration.FIELDS}
    return calibration.Search([f"prompt {i}" for i in range(prompts)], own, {**settings, "num_images": batch}, None)


def batches(prompts, batch, pictures, seed):
    """Prompt, seed and number of pictures of each batch of one Calibrate, as its help says."""
    count = math.ceil(pictures / batch)
    return [(i % prompts, (seed + i) % 2**64, min(batch, pictures - i * batch)) for i in range(count)]


@given(st.integers(1, 12), st.integers(1, 8), st.integers(2, 1024), st.sampled_from([0, 5, 2**64 - 3]))
def test_the_parts_draw_what_one_calibrate_draws(prompts, batch, pictures, seed):
    parts = search(prompts, batch, pictures, seed).parts()
    drawn = [one for begin, size in parts for one in batches(prompts, batch, size, begin)]
    assert drawn == batches(prompts, batch, pictures, seed)
    assert len(parts) == 1 or min(size for _, size in parts) >= max(calibration.LEAST_PART, prompts * batch)


def test_the_graph_has_every_input_of_calibrate_and_each_prompt_once():
    found = search(3, 2, 100).plan({"diffusion_model": "a", "clip_l": "b", "t5xxl": "c", "vae": "d"})
    for job, (seed, pictures) in zip(found.jobs, search(3, 2, 100).parts(), strict=True):
        node = job.body["calibrate"]["inputs"]
        assert node.keys() == {item.name for item in CALIBRATE.inputs}
        assert (node["seed"], node["pictures"], node["sigma"]) == (seed, pictures, 0.7)
        for name, socket in node.items():
            assert not isinstance(socket, list) or socket[0] in job.body, name
        texts = [one["inputs"]["text"] for one in job.body.values() if one["class_type"] == "CLIPTextEncode"]
        assert sorted(texts) == ["", "prompt 0", "prompt 1", "prompt 2"]
        assert job.body["model"]["inputs"] == {"unet_name": "a", "weight_dtype": "default"}
        assert job.body["latent"]["inputs"] == {"width": 1024, "height": 1024, "batch_size": 2}


def tried(change, error, alpha=0.3):
    return {"blocks": "auto", "alpha": alpha, "change": change, "error": error}


def test_a_part_counts_by_its_pictures():
    (row,) = calibration.pooled([(16, [tried(0.1, 0.04)]), (48, [tried(0.5, 0.04)])])
    assert row["change"] == pytest.approx(0.25 * 0.1 + 0.75 * 0.5)
    assert row["error"] == pytest.approx(math.hypot(0.25 * 0.04, 0.75 * 0.04))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.floats(0.001, 1))
def test_equal_parts_give_the_mean_and_an_error_that_falls_with_their_root(changes, error):
    (row,) = calibration.pooled([(16, [tried(one, error)]) for one in changes])
    assert row["change"] == pytest.approx(sum(changes) / len(changes), abs=1e-12)
    assert row["error"] == pytest.approx(error / math.sqrt(len(changes)))


def test_the_best_stands_first_and_what_is_unknown_last():
    rows = [tried(-0.1, 0.1, 0.1), tried(None, None, 0.2), tried(0.2, None, 0.3)]
    assert [row["alpha"] for row in calibration.pooled([(16, rows)])] == [0.3, 0.1, 0.2]
    assert calibration.pooled([(16, rows), (16, rows)])[-1] == tried(None, None, 0.2)


def test_what_is_missing_is_told_and_nothing_is_chosen_where_nothing_helps(tmp_path):
    plan, folder = search(1, 1, 32).plan({}), Folder(tmp_path)
    told = calibration.write(plan, folder, {plan.jobs[1].name: "out of memory"})
    assert told == json.loads((tmp_path / "calibration.json").read_text()) == {
        "chosen": None, "reach": "prediction", "negative_prompt": "sampler's", "tried": [],
        "pictures": 0, "missing_pictures": 32, "reasons": {"part 2": "out of memory"},
    }  # fmt: skip
    assert "nothing was measured (0 pictures, 32 missing)" in calibration.words(told)
    folder.write(plan.jobs[0], Drawn([], {"numbers": {"tried": [tried(-0.1, 0.1)]}}, "here"))
    told = calibration.write(plan, folder, {})
    assert (told["chosen"], told["pictures"], told["missing_pictures"]) == (None, 16, 16)
    assert "none did better than no guidance (16 pictures, 16 missing)" in calibration.words(told)
    assert (tmp_path / "calibration.csv").read_text().splitlines()[1] == "auto,0.3,-0.1,0.1"


@pytest.mark.parametrize(
    "text, said",
    [
        ("", ["prompts is missing"]),
        ("prompts = ['a']\nseeds = [1]", ["seeds is unknown", "valid are prompts, search, settings, cluster"]),
        ("prompts = ['a']\n[search]\npicture = 3", ["search.picture is unknown", "did you mean pictures?"]),
        ("prompts = ['a']\n[search]\npictures = 1\nsigma = 2", ["pictures 1 is not a whole number from 2", "sigma 2"]),
        (
            "prompts = ['a', 'b', 'c']\n[search]\npictures = 4\n[settings]\nnum_images = 2",
            ["pictures 4 is less than prompts × num_images, 6"],
        ),
        ("prompts = ['a']\n[search]\ncandidates = 'auto; zzz'", ['"zzz" is not a block']),
        ("prompts = ['a']\n[search]\ncandidates = '2; 3'", ["'2' and '3' among them, would draw the same"]),
        ("prompts = ['a']\n[search]\nalphas = '0.15; 0.3'", ["'0.15; 0.3' in alphas is not a number"]),
        ("prompts = ['a']\n[settings]\nstrength = 1", ["settings.strength is unknown"]),
        ("prompts = ['a']\n[cluster]\nworkers = 0", ["cluster.workers 0", "cluster.comfyui is missing"]),
    ],
)
def test_a_bad_file_is_refused_with_the_culprit_and_what_is_valid(tmp_path, text, said):
    (tmp_path / "search.toml").write_text(text)
    with pytest.raises(BadPlan) as caught:
        calibration.read(tmp_path / "search.toml")
    assert [words for words in said if words not in str(caught.value)] == []

"""The `curve` socket: the host's own curves, sampled as the host samples them, on a host that has them or has not."""

import math

import pytest
import torch
from comparing import BLOCKS, assert_same_effect
from nag_pag_flux.nagpag.patch.curve import read_curve
from nag_pag_flux.nodes.guidance import NAGPAGGuidanceAdvanced
from oracle import guided_host
from sampling import HOST_SAMPLES_CURVES, guided, picture_tokens, prompt, sample

POSITIVE = prompt(1)
POINTS = [[0.0, 1.0], [0.35, 0.8], [0.5, 0.1], [1.0, 0.0]]


def test_the_input_is_a_socket():
    """As a widget it would always have a value, and always win."""
    (curve,) = (item for item in NAGPAGGuidanceAdvanced.define_schema().inputs if item.id == "curve")
    assert (curve.get_io_type(), curve.optional) == ("CURVE", True)
    assert curve.as_dict()["forceInput"] is True


if not HOST_SAMPLES_CURVES:

    def test_a_curve_is_refused_in_plain_words_and_without_one_the_node_works(flux):
        with pytest.raises(ValueError, match="this ComfyUI can't sample a curve.*use schedule, or a newer ComfyUI"):
            guided(flux, curve={"points": POINTS})
        assert guided(flux, curve=None).wrappers

else:
    from comfy_api.input import CurveInput
    from comfy_extras.nodes_curve import CurveEditor

    def by_hand(x):
        """The straight lines between POINTS."""
        (x0, y0), (x1, y1) = next(pair for pair in zip(POINTS, POINTS[1:], strict=False) if x <= pair[1][0])
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)

    @pytest.mark.parametrize("interpolation", ["linear", "monotone_cubic"])
    def test_what_the_curve_editor_gives_is_sampled_by_the_host(interpolation):
        raw = {"points": POINTS, "interpolation": interpolation}
        edited = CurveEditor.execute(curve=raw).args[0]
        table = CurveInput.from_raw(raw).to_lut(101)
        for curve in (read_curve(edited), read_curve(raw)):
            assert [curve(i / 100) for i in range(101)] == pytest.approx(list(table), abs=1e-12)
        if interpolation == "linear":
            assert [read_curve(raw)(i / 100) for i in range(101)] == pytest.approx(
                [by_hand(i / 100) for i in range(101)]
            )

    @pytest.mark.parametrize(
        "point", [[0.5, 10**400], [-(10**400), 0.5], [0.5, 10**5000], [0.5, "x" * 10**6], [[], {}]]
    )
    def test_what_is_no_point_is_refused_in_a_short_sentence(point):
        with pytest.raises(ValueError, match="curve: .* is not a curve") as caught:
            read_curve({"points": [[0, 1], point]})
        assert len(str(caught.value)) < 700

    @pytest.mark.parametrize("point", [[0.5, 0.25], [0.0, 1.0]])
    def test_one_point_is_a_constant(point):
        curve = read_curve({"points": [point]})
        assert [curve(x) for x in (0.0, 0.3, 1.0)] == [point[1]] * 3

    def test_beyond_the_outer_points_their_strength_holds():
        curve = read_curve([[0.2, 0.3], [0.8, 0.6]])
        assert (curve(0.0), curve(1.0)) == (0.3, 0.6)

    def test_a_curve_in_the_node_wins_over_the_schedule(flux):
        raw = {"points": POINTS, "interpolation": "linear"}
        mu = flux.get_model_object("model_sampling").shift
        plain = sample(flux, POSITIVE, steps=4)
        with guided_host(
            BLOCKS, picture_tokens(), strength=lambda sigma: by_hand(1 - 1 / (1 + math.exp(mu) * (1 / sigma - 1)))
        ):
            expected = sample(flux, POSITIVE, steps=4)
        for curve in (raw, CurveEditor.execute(curve=raw).args[0]):
            ours = sample(guided(flux, curve=curve, schedule="linear fade-in"), POSITIVE, steps=4)
            assert_same_effect(ours, expected, plain)

    def test_a_curve_of_full_strength_is_the_constant_schedule(flux):
        ours = sample(guided(flux, curve={"points": [[0, 1], [1, 1]]}), POSITIVE)
        torch.testing.assert_close(ours, sample(guided(flux), POSITIVE), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        "curve, message",
        [
            ({"points": []}, "has no points"),
            (
                {"points": [[0, 1.5]]},
                "curve point (0, 1.5): y is not in 0 to 1, the share of scale; for more raise scale",
            ),
            ({"points": [[0, 1], [1, -0.1]]}, "curve point (1, -0.1): y is not in 0 to 1"),
            ({"points": [[0, 1], [20, 0]]}, "curve point (20, 0): x is not in 0 to 1, the way from start_percent"),
            ({"points": [[0, math.nan]]}, "curve point (0, nan): y is not in 0 to 1"),
            ({"points": [[math.inf, 1]]}, "curve point (inf, 1): x is not in 0 to 1"),
            ({"points": [[0, 1, 2]]}, "is not a curve"),
            ({"points": [["a", 1]]}, "is not a curve"),
            ({"interpolation": "linear"}, "is not a curve (KeyError: 'points')"),
            ("linear", "'linear' is not a curve"),
            (3, "3 is not a curve (TypeError: 'int' object is not iterable); valid is the output of a Curve Editor"),
        ],
    )
    def test_a_bad_curve_is_refused_by_what_is_wrong(flux, curve, message):
        with pytest.raises(ValueError) as caught:
            guided(flux, curve=curve)
        assert message in str(caught.value) and str(caught.value).startswith("NAG-PAG: curve")

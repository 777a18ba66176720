"""What is said of guidance in words."""

import pytest
from nag_pag_flux.nagpag.patch.report import idle, summary
from nag_pag_flux.nagpag.settings import Settings


def test_the_summary_names_what_is_not_as_usual():
    assert summary(Settings()) == "scale 3, tau 1.75, alpha 0.5, identity by 0.1, from 45% to 100% of the sampling"
    assert summary(Settings(), carried=True) == "scale 3, tau 1.75, alpha 0.5, from 45% to 100% of the sampling"
    assert summary(Settings(schedule="bell", guide_unconditional=True)).endswith("bell, unconditional rows too")
    assert summary(Settings(schedule="bell", curve=lambda x: x)).endswith("of the sampling, along a curve")


def drawn(x):
    return x


@pytest.mark.parametrize(
    "inputs, said",
    [
        ({}, []),
        ({"temperature": 3.0, "negative": "softened"}, []),
        ({"temperature": 3.0}, ["temperature 3 does nothing with negative identity"]),
        ({"temperature": 1.5, "negative": "mean"}, ["temperature 1.5 does nothing with negative mean"]),
        ({"reach": "output", "renew_every": 5}, []),
        ({"renew_every": 5}, []),  # at the prediction
        ({"reach_blocks": 2}, []),  # the default of reach was not chosen
        ({"reach": "attention"}, []),  # the default of renew_every was not chosen
        (
            {"reach": "attention", "renew_every": 5},
            [
                "renew_every 5 does nothing with reach attention and reach_blocks 0 and negative_prompt off and no "
                "negative_conditioning"
            ],
        ),
        ({"reach": "attention", "renew_every": 5, "negative_prompt": "sampler's"}, []),
        (
            {"reach": "attention", "renew_every": 5, "negative_conditioning": [["a text", {}]]},
            ["negative_prompt off does nothing with a negative_conditioning"],
        ),
        (
            {"reach": "attention", "renew_every": 5, "reach_blocks": 2},
            ["reach attention does nothing with reach_blocks 2"],
        ),
        ({"reach": "double blocks", "reach_blocks": 2}, ["reach double blocks does nothing with reach_blocks 2"]),
        ({"schedule": "bell", "curve": drawn}, ["schedule bell does nothing with a curve"]),
        ({"schedule": "bell"}, []),
    ],
)
def test_what_does_nothing_is_said(inputs, said):
    assert idle(Settings(**{"negative_prompt": "off", **inputs})) == said

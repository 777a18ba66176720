"""How ours is used beside another node."""

from __future__ import annotations

from typing import Any, NamedTuple

STEPS = 5
# Strong, so that acting is seen; what is renewed is at every fourth step.
STRONG = {"scale": 3.0, "alpha": 0.5, "tau": 2.5, "start_percent": 0.0, "renew_every": 4}
DISTURBED = {**STRONG, "perturbation": 1.0, "negative_prompt": "off"}


class Way(NamedTuple):
    """How ours is used. cfg: of the sampler; due: at how many of STEPS the branch may be computed then."""

    cfg: float
    due: tuple[int, ...]
    inputs: dict[str, Any]


# At the prediction it is new at every step where the host works out the negative prompt anyway, as a node may decide.
WAYS = {
    "prediction": Way(1.0, (2, STEPS), {**STRONG, "reach": "prediction"}),
    "prediction, cfg 2": Way(2.0, (2, STEPS), {**STRONG, "reach": "prediction"}),
    "longer": Way(2.0, (2,), {**DISTURBED, "reach": "double blocks"}),
    "attention": Way(2.0, (0,), {**DISTURBED, "reach": "attention", "renew_every": 1}),
}
CFGS = (1.0, 2.0)

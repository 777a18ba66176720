"""What may be worth trying because overcooking limits how strong guidance can be: contenders, few settings of each."""

from __future__ import annotations

from typing import Any

from ...nagpag.blocks import parse_blocks
from .contenders import CARRIED, Contender, carried
from .merge_variants import bound, momentum, parallel, tau_by_step
from .renewal_variants import adaptive, extrapolated, faded, placed
from .variants import named

# Of twelve steps those that renewal at every fourth one takes, moved towards the start, where d changes most.
EARLY, EARLIEST, TWICE = (0.083, 0.333), (0.083, 0.167), (0.083,)


def experiments(depths: tuple[int, int], scale: float = 0.5, tau: float = 1.1) -> list[Contender]:
    """The base, renewed at every fourth and at every second step, and everything that is tried, of this strength.

    depths: double and single blocks of the model.
    """
    no_tau: dict[str, Any] = {"depths": depths} | ({"scale": scale} if scale != CARRIED["scale"] else {})
    both = no_tau | ({"tau": tau} if tau != CARRIED["tau"] else {})
    return [
        carried("the base", **both),
        carried("renewed at every second step", renew_every=2, **both),
        *(parallel(keep, **both) for keep in (0.0, 0.5)),
        *(bound(ratio, **both) for ratio in (0.1, 0.15)),
        bound(0.15, **no_tau, tau=10.0),
        *(momentum(beta, **both) for beta in (-0.5, 0.5)),
        tau_by_step(1.0, tau, **no_tau),
        tau_by_step(tau, 1.0, **no_tau),
        *(within(start, end, **both) for start, end in ((0.0, 0.5), (0.2, 0.8), (0.25, 1.0))),
        *(extrapolated(by, **both) for by in (0.5, 1.0)),
        *(faded(power, **both) for power in (0.5, 1.0)),
        *(placed(shares, **both) for shares in (EARLY, EARLIEST, TWICE)),
        *(adaptive(every, 0.5, 0.3, **both) for every in (2, 4)),
        *(later(blocks, **both) for blocks in sorted({1, depths[1] // 4, depths[1] // 2} - {0})),
    ]


def within(start: float, end: float, *, depths: tuple[int, int], **inputs: Any) -> Contender:
    """The product in a part of the sampling only (guidance interval, arXiv 2404.07724)."""
    words = named(f"guided from {start} to {end}", inputs)
    return carried(words, depths=depths, start_percent=start, end_percent=end, **inputs)


def later(blocks: int, *, depths: tuple[int, int], **inputs: Any) -> Contender:
    """The product, merged so many single blocks after the last double one."""
    first = parse_blocks("auto", *depths)[0].position(depths[0])
    words = named(f"merged {blocks} single blocks later", inputs)
    return carried(words, depths=depths, reach_blocks=depths[0] - 1 + blocks - first, **inputs)

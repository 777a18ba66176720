"""What a step was set out to cost at most, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .results import DEFAULTS, IDENTITY, SCALE_0, SOFTENED, Results, negative_row

NEGATIVE_ROW = negative_row("double blocks", 4)


class Goal(NamedTuple):
    """What was set out to reach: at most `limit`. value: None where this run could not measure it; who: whose it is."""

    text: str
    value: float | None
    limit: float
    form: str
    who: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if self.value <= self.limit else "**missed**"

    def row(self) -> tuple[str, str, str]:
        shown = "" if self.value is None else self.form.format(self.value)
        return self.text, f"{shown} ({self.who})" if self.who else shown, self.verdict


def goals(results: Results) -> list[Goal]:
    """What was set out to reach."""
    ratio = {entry.name: results.times.at(entry) for entry in results.entries}
    limit = 1.005 if results.device.type == "cuda" else 1.03
    return [
        Goal(f"reach attention, identity: at most {limit:g}×", ratio[IDENTITY], limit, "{:.3f}×"),
        Goal("reach attention, softened on three blocks: at most 1.02×", ratio[SOFTENED], 1.02, "{:.3f}×"),
        # A whole pass at two of twenty steps.
        Goal(f"{DEFAULTS}: at most 1.10×", ratio[DEFAULTS], 1.10, "{:.3f}×"),
        Goal("a negative prompt, renewed every 4th step: at most 1.10×", ratio[NEGATIVE_ROW], 1.10, "{:.3f}×"),
        *_goals_of_all(results),
    ]


def _goals_of_all(results: Results) -> list[Goal]:
    """Those that all of our entries are to meet: the worst one is shown."""
    times, plain = results.times, results.graphs["plain"]
    ours = {e.name: e for e in results.entries if e.reach and e.name != SCALE_0}
    # With a negative prompt a branch runs there, and each block's difference is held.
    inside = [name for name, entry in ours.items() if entry.reach == "attention" and not any(entry.blocks)]
    # At the prediction the host has a batch of two, or where that has no room one after the other, as with cfg.
    beyond = [name for name, entry in ours.items() if entry.reach in ("double blocks", "output")]
    compiled = [name for name in ours if name in results.graphs]
    return [
        _worst(
            "every reach within 3 % of counted, beyond two standard errors",
            ours,
            lambda n: max(0.0, abs(times.gap(ours[n])) - 2 * times.error(ours[n])),
            0.03,
            "{:.1%}",
        ),
        _worst(
            "reach attention: at most 1 activation more, and 1 % of one for the tokens' norms",
            inside,
            results.extra_memory,
            1.01,
            "{:.2f}",
        ),
        _worst(
            "longer reaches: at most 3 activations more, and a negative prompt's text and positions",
            beyond,
            lambda n: results.extra_memory(n) - (results.text_share if n.startswith("negative") else 0),
            3,
            "{:.2f}",
        ),
        _worst("no graph break beyond plain's", compiled, lambda n: results.graphs[n].breaks, plain.breaks, "{:.0f}"),
        _worst(
            "no recompile beyond plain's", compiled, lambda n: results.graphs[n].graphs, plain.graphs, "{:.0f} graphs"
        ),
        _worst(
            "no synchronisation beyond plain's",
            ours,
            lambda n: results.synchronisations[n],
            results.synchronisations["plain"] or 0,
            "{:.0f}",
        ),
    ]


def _worst(text: str, names: Iterable[str], measured: Callable[[str], float | None], limit: float, form: str) -> Goal:
    values = {name: value for name in names if (value := measured(name)) is not None}
    who = max(values, key=values.__getitem__, default="")
    return Goal(text, values.get(who), limit, form, who)

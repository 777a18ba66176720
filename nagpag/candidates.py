"""What Calibrate tries, read from its two texts: block specs and alphas."""

from __future__ import annotations

from dataclasses import dataclass

from .blocks import check_spec
from .inputs.calibration import ALPHAS, CANDIDATES
from .inputs.guidance import BLOCKS
from .inputs.kinds import shortened
from .settings import Settings

STARTS = (0, 2, 3, 4, 6)  # eighths of the double blocks at which the candidates begin if none are named
MOST_CANDIDATES = 1000  # each draws a whole series of pictures


@dataclass(frozen=True)
class Candidate:
    """What is tried: a block spec and an alpha."""

    blocks: str
    alpha: float

    def __str__(self) -> str:
        return f"{self.blocks}, alpha {self.alpha:g}"


def read_candidates(
    candidates: str, alphas: str, common: Settings, double_blocks: int | None = None
) -> list[Candidate]:
    """Every block spec with every alpha. candidates: as `read_specs` takes them; none: what there is to choose from.

    Raises ValueError that quotes what is no spec or no alpha, or says that it is too much, or that specs do nothing.
    common: what all candidates are tried with. double_blocks: of the model, None before it is known.
    """
    specs, strengths = read_specs(candidates), _alphas(alphas)
    if len(specs) > 1 and not _blocks_matter(common):
        raise ValueError(
            f"NAG-PAG Calibrate: {len(specs)} candidates, {shortened(specs[0])} and {shortened(specs[1])} among them, "
            f"would draw the same: with a negative prompt and reach {common.reach!r} blocks do nothing. Leave "
            "candidates empty, which tries alphas alone, or switch negative_prompt off; with reach 'attention' blocks "
            "count, with 'double blocks' single ones"
        )
    none_named = default_specs(double_blocks or 8) if _doubles_matter(common) else [BLOCKS.default]
    specs = specs or none_named
    if (number := len(specs) * len(strengths)) > MOST_CANDIDATES:
        raise ValueError(
            f"NAG-PAG Calibrate: {len(specs)} candidates with {len(strengths)} alphas are {number} to try; "
            f"at most {MOST_CANDIDATES} are"
        )
    return [Candidate(spec, alpha) for spec in specs for alpha in strengths]


def read_specs(candidates: str) -> list[str]:
    """Block specs, one a line or with semicolons. Raises ValueError that quotes what is none."""
    if problem := CANDIDATES.problem(candidates):
        raise ValueError(f"NAG-PAG Calibrate: {problem}")
    specs = [spec.strip() for spec in candidates.replace(";", "\n").splitlines() if spec.strip()]
    for spec in specs:
        check_spec(spec)
    return specs


def _blocks_matter(common: Settings) -> bool:
    """A negative prompt is carried through all blocks; of a spec only its last single block may say how far."""
    return _doubles_matter(common) or common.reach == "double blocks"


def _doubles_matter(common: Settings) -> bool:
    return not common.carries_negative or common.in_attention


def _alphas(text: str) -> list[float]:
    if problem := ALPHAS.problem(text):
        raise ValueError(f"NAG-PAG Calibrate: {problem}")
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(
            f"NAG-PAG Calibrate: alphas is empty; write numbers from 0 to 1 with commas, such as {ALPHAS.default}"
        )
    return [_alpha(word) for word in words]


def _alpha(word: str) -> float:
    try:
        alpha = float(word)
    except ValueError:
        alpha = -1.0
    if not 0 < alpha <= 1:
        raise ValueError(f"NAG-PAG Calibrate: {shortened(word)} in alphas is not a number above 0 and up to 1")
    return alpha


def default_specs(double_blocks: int) -> list[str]:
    """The double blocks from some place on, where nothing is named: the first, a quarter, three eighths (auto) …"""
    firsts = dict.fromkeys(min(double_blocks * start // 8, double_blocks - 1) for start in STARTS)
    return [f"{first}-{double_blocks - 1}" for first in firsts]

"""What a step costs in each family beside FLUX, counted and timed beside the plain model, on small random models.

As in the bench plain and guided samplings alternate, each step divided by the mean of the plain ones before and after.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ...nagpag.schedule import renewal
from .. import host
from ..in_host import enter_host
from ..make.markdown import table
from ..toy import small_families
from .bench import alternated
from .random_flux import sampled_seconds
from .results import SAMPLED, Entry, Shares, Times

PAGE = host.REPO / "docs" / "cost_families.md"
TEXT, STEPS, ROUNDS = 32, 6, 6
CFG = "CFG 2"


@dataclass(frozen=True)
class Timed:
    """A family's small model. latent: (channels, …, height, width); context: features of a text; extra: of a prompt.

    sound: the latent of that, where the model can't do without.
    """

    small: str
    latent: tuple[int, ...]
    context: int
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    sound: tuple[int, ...] = ()

    def start(self) -> Any:
        """The empty latent of one picture or video, with its sound."""
        from comfy.nested_tensor import NestedTensor

        made = [torch.zeros(1, *shape) for shape in (self.latent, self.sound) if shape]
        return NestedTensor(made) if self.sound else made[0]

    def prompts(self) -> tuple[list, list]:
        """A prompt and a negative one."""
        one, other = (self._prompt(seed) for seed in (1, 2))
        return one, other

    def _prompt(self, seed: int) -> list:
        text = torch.randn(1, TEXT, self.context, generator=torch.Generator().manual_seed(seed))
        return [[text, dict(self.extra)]]


MASKED = {"attention_mask": torch.ones(1, TEXT, dtype=torch.long)}
POOLED = {"pooled_output": torch.zeros(1, 32)}
# A model of each family, at 1024 tokens of the picture or the video; SD 3's small one knows the places of 256.
TIMED = (
    Timed("Qwen-Image", (16, 1, 64, 64), 64),
    Timed("Lumina 2", (16, 64, 64), 48),
    Timed("Wan 2.1", (16, 4, 32, 32), 48),
    Timed("HunyuanVideo", (16, 4, 32, 32), 48, POOLED),
    Timed("SD 3.5 Large", (16, 32, 32), 48, POOLED),
    Timed("LTXV", (128, 4, 16, 16), 48, MASKED),
    Timed("LTX-2", (128, 4, 16, 16), 96, MASKED),
    Timed("AuraFlow", (4, 64, 64), 2048),
    Timed("Kandinsky 5", (16, 4, 32, 32), 48, POOLED),
    Timed("Cosmos Predict 2", (16, 4, 32, 32), 48),
    Timed("Krea 2", (16, 1, 64, 64), 48),
    Timed("OmniGen 2", (16, 64, 64), 48, MASKED),
    Timed("Lens", (128, 32, 32), 48),
    Timed("MiniMax H3", (24, 4, 32, 32), 48, sound=(32, 2, 16)),
)


def entries(model: Any) -> list[Entry]:
    """What the family can do, at every step; and as the node's defaults renew it."""
    from ...nagpag.patch import find_model

    every = renewal(SAMPLED)  # as the node does in so many steps
    found = [
        _guided(model, "attention", reach="attention"),
        _guided(
            model,
            f"negative prompt, prediction, renewed every {every}",
            reach="prediction",
            renew_every=every,
            negative_prompt="sampler's",
        ),
    ]
    if "output" in find_model(model).family.reaches:
        found += [
            _guided(model, "output", reach="output", renew_every=1),
            _guided(model, "negative prompt, output", reach="output", renew_every=1, negative_prompt="sampler's"),
            _guided(
                model,
                f"negative prompt, output, renewed every {every}",
                reach="output",
                renew_every=every,
                negative_prompt="sampler's",
            ),
        ]
    return [*found, Entry(CFG, model, whole=1, cfg=2.0)]


def _guided(model: Any, name: str, **inputs: Any) -> Entry:
    from ...nagpag.patch import apply_guidance, find_model, make_plan
    from ...nagpag.settings import Settings

    settings = Settings(**{"start_percent": 0.0, "negative_prompt": "off", **inputs})
    plan = make_plan(find_model(model), settings)
    branch = plan.positions if plan.beside_blocks else ()
    every = settings.renew_every if plan.renews else 1
    guided, whole = apply_guidance(model, settings), int(plan.at_prediction)
    return Entry(name, guided, (len(branch), 0), every, whole=whole, reach=settings.reach)


def share_of_a_block(model: Any) -> Shares:
    """What a block is of a plain pass, by count: all of its blocks are the pass."""
    from ...nagpag.patch import find_model

    return Shares(1 / sum(find_model(model).depths), 0.0)


def time_steps(timed: Timed, model: Any, found: list[Entry], rounds: int, steps: int) -> Times:
    """Time all entries in alternation with the plain model."""
    what = (timed.start(), timed.prompts(), steps)

    def sample(model: Any, cfg: float) -> list[float]:
        return sampled_seconds(model, *what, cfg)

    sample(model, 1.0)  # warm
    ratios, plain = alternated(sample, model, found, rounds)
    return Times(ratios, plain, share_of_a_block(model))


def load(timed: Timed) -> Any:
    """The small model, by the host's own loader."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        small_families.make_small(timed.small, path)
        return small_families.load_small(timed.small, path)


def rows(all_timed: tuple[Timed, ...], rounds: int, steps: int = STEPS) -> Iterator[tuple[str, ...]]:
    """The table's rows. rounds: 0 counts and times nothing."""
    from ...nagpag.patch import find_model

    for timed in tqdm(all_timed, desc="families"):
        model = load(timed)
        found = entries(model)
        times = time_steps(timed, model, found, rounds, steps) if rounds else None
        for entry in found:
            told = f"{times.at(entry):.3f}× ± {times.error(entry):.3f}" if times else "not timed yet"
            counted = f"{entry.counted(share_of_a_block(model)):.2f}×"
            yield find_model(model).family.name, entry.name, counted, told


def page(made: list[tuple[str, ...]], rounds: int, steps: int = STEPS) -> str:
    """The whole page as Markdown."""
    where = f"{platform.machine()} CPU with {torch.get_num_threads()} threads, torch {torch.__version__}"
    timed = f"""*Timed*: each step over the plain ones before and after it in the same run, the median, ± its standard
error from how {rounds} rounds differ, on {where}.
These models are so small that what Python does between their blocks counts, too; that does not grow with the model."""
    return f"""# What a step costs in each family

Made by `python3 lab/host.py run -- lab/run.py family_cost`: the small random models of
`lab/toy/small_families.py`, 1024 tokens of a picture or video and {TEXT} of text, {steps} Euler steps, all guided.

{table(("family", "", "counted", "timed"), made)}

*Counted*: passes of the model in a step of {SAMPLED}, by the blocks that run; CFG and the prediction run both passes as
one batch of two. The node's defaults carry a negative prompt to the prediction and begin at 45 % of the sampling: of
{SAMPLED} steps 2 compute it, 1.10 passes, with every model (with the scheduler `simple`).

{timed if rounds else NOT_TIMED}
"""


NOT_TIMED = "*Timed*: not yet. The command above fills it in; it wants a quiet machine for some minutes."


def main(arguments: list[str]) -> int:
    """Measure, print the page and write it to docs/cost_families.md. --rounds 0 counts and times nothing."""
    parser = argparse.ArgumentParser(prog="family_cost", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="more rounds, smaller errors (default %(default)s)")
    asked = parser.parse_args(arguments)
    enter_host()
    text = page(list(rows(TIMED, asked.rounds)), asked.rounds)
    PAGE.write_text(text)
    print(f"{text}\n{PAGE.relative_to(host.REPO)} is written")
    return 0

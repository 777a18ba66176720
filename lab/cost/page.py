"""The page that `make bench` writes: tables, and each goal with whether it is met."""

from __future__ import annotations

import platform
import statistics

import torch

from ...nagpag.inputs.guidance import START_PERCENT
from .. import host
from ..make.markdown import table
from .goals import goals
from .results import CFG, DEFAULTS, SAMPLED, Entry, Results

PAGE = host.REPO / "docs" / "cost.md"
GPU_PAGE = host.REPO / "docs" / "cost_gpu.md"

NOT_ON_A_GPU = (
    "Not measured yet: no GPU was at hand. On a machine with one, `make bench` also times a FLUX of FLUX.1's full size "
    "with random bfloat16 weights at 1024×1024 and writes cost_gpu.md; until then nothing here is known to hold there."
)


def page(results: Results) -> str:
    """The whole page as Markdown."""
    gpu = results.device.type == "cuda"
    parts = [
        "# What a step costs on a GPU" if gpu else "# What a step costs",
        _conclusion(results),
        _how(results),
        cost_table(results),
        COST_NOTES,
        "## Goals",
        goal_table(results),
        "## Under torch.compile",
        compile_table(results),
        COMPILE_NOTES,
    ]
    if not gpu:
        parts += ["## On a GPU", f"See [{GPU_PAGE.name}]({GPU_PAGE.name})." if GPU_PAGE.exists() else NOT_ON_A_GPU]
    return "\n\n".join(parts) + "\n"


def _conclusion(results: Results) -> str:
    """What most come for, first."""
    entries = {entry.name: entry for entry in results.entries}

    def told(name: str) -> str:
        times = results.times
        return f"{times.at(entries[name], 0.5):.2f}× ({entries[name].counted(times.shares):.2f}× by count)"

    return f"**A step of {SAMPLED} takes {told(DEFAULTS)} with the node's defaults, and {told(CFG)} with CFG 2.**"


def _how(results: Results) -> str:
    sizes = results.sizes
    return f"""Made by `make bench`: a FLUX of {sizes.doubles} double and {sizes.singles} single blocks, \
width {sizes.hidden:,}, random bfloat16 weights,
{sizes.picture:,} picture and {sizes.text} text tokens, {results.steps} Euler steps, {results.rounds} rounds, \
ComfyUI {_version()}, torch {torch.__version__}, on
{_machine(results.device)}. A plain step takes {statistics.median(results.times.plain):.3g} s. \
The rows *attention* guide blocks 8, 12 and 16; the branches of the
longer reaches start in block 8, those that carry a negative prompt in block 0; at the prediction the branch is a \
whole pass, as the defaults have it. In the attention of all blocks a negative prompt is what NAGuidance has, and \
between renewals each block's difference is held. All guide every step but the defaults, which begin at
{START_PERCENT.default:.0%} of the sampling. What is told is the mean step of a sampling of {SAMPLED} steps, of which \
the defaults run the model a second time at two. \
Random weights cost what trained ones do; they say nothing of pictures."""


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU with {torch.get_num_threads()} threads"


def _version() -> str:
    import comfyui_version

    return comfyui_version.__version__


# --- time and memory ---


COST_NOTES = """*A step*: each step's time over that of the plain steps before and after it, the median, \
± its standard error from how
the rounds differ; *middle half*: from the lower to the upper quartile of steps. \
Where a branch is renewed now and then, the
steps that renew it and those that don't have medians of their own, weighed by how many of each 20 steps have. \
*Counted*: the blocks
that the negative branch runs through, each at its share of a plain step as timed in the same run, over the steps that
renew it. *Gap*: a step less counted, in shares of a plain step. *Memory*: \
what a step takes at its peak beyond the plain
model's peak, in activations of the picture's tokens (tokens × width, bfloat16). \
`scale 0` is the plain model itself: its row
says how exact the others are. CFG, NAGuidance and reach prediction run both
passes as one batch of two, which may take less than two passes one after the other; where there is no memory for two,
ComfyUI runs them one after the other. In the attention of all blocks a negative prompt takes more than is counted:
guidance itself, in each block and at each step, held or not. On so narrow a model that is much; it grows with the
width, and a block with its square."""


def cost_table(results: Results) -> str:
    """One row for each entry."""
    plain = statistics.median(results.times.plain)
    head = ("", "a step", "middle half", "counted", "gap", "seconds", "memory")
    rows = [_cost_row(results, entry, plain) for entry in results.entries]
    return table(head, [("plain", "1", "", "1", "", f"{plain:.3g}", ""), *rows])


def _cost_row(results: Results, entry: Entry, plain: float) -> list[str]:
    times = results.times
    low, ratio, high = (times.at(entry, quantile) for quantile in (0.25, 0.5, 0.75))
    return [
        entry.name,
        f"{ratio:.3f}× ± {times.error(entry):.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{entry.counted(times.shares):.3f}×",
        f"{times.gap(entry):+.1%}",
        f"{ratio * plain:.3g}",
        f"{results.extra_memory(entry.name):+.2f}",
    ]


# --- compiled graphs, and synchronisations ---


COMPILE_NOTES = """By the host's own compile wrapper, on a small FLUX, \
with the attention function that the host takes on a GPU. A graph
more than the plain model's is one compilation more in a sampling, not one at every step: \
a step that computes a branch and one
that reuses its difference are two graphs, and so are two inputs of different batch size."""


def compile_table(results: Results) -> str:
    """Graphs and breaks of each entry; synchronisations where there is a GPU."""
    rows = [
        (name, str(graphs.graphs), str(graphs.breaks), _count(results.synchronisations[name]))
        for name, graphs in results.graphs.items()
    ]
    return table(("", "graphs", "graph breaks", f"synchronisations in {results.steps} steps"), rows)


def _count(number: int | None) -> str:
    return "not measured" if number is None else str(number)


# --- goals ---


def goal_table(results: Results) -> str:
    """Each goal beside what was measured, and whether it is met."""
    return table(("goal", "measured", ""), [goal.row() for goal in goals(results)])

"""What a sweep's file may say beside the settings that it fixes and varies, and the options of the command."""

from __future__ import annotations

from .kinds import Flag, Number, Text, Texts
from .requests import MOST_TEXT

PROMPTS = Texts(name="prompts", least=1, most=10_000, longest=MOST_TEXT, does="What the pictures show.")
GRAPH = Text(
    name="graph",
    default=None,
    does="A graph's file (ComfyUI's Export (API)), beside the sweep's, to run instead of the shipped one.",
)
PROMPT_INTO = Text(
    name="prompt_into",
    default=None,
    does='With a graph: where the prompts go, such as "6.text". Without it found.',
)
SEED_INTO = Text(
    name="seed_into",
    default=None,
    does='With a graph: where the seeds go, such as "KSampler.seed". Without it every seed there is.',
)
NUMBERS = Flag(
    name="numbers",
    default=True,
    does="Also keep what guidance did in each picture. NAG-PAG Plot draws its plot for that, in about half a second.",
)
KEYS = (PROMPTS, GRAPH, PROMPT_INTO, SEED_INTO, NUMBERS)

# --- [cluster]: what each worker on Ray starts ---

COMFYUI = Text(name="comfyui", does="The ComfyUI folder, with this pack in it, on every machine of the cluster.")
PYTHON = Text(
    name="python",
    default=None,
    does="The Python that runs it. Without it that of .venv or venv in the folder, else the one that runs Ray.",
)
WORKERS = Number(
    name="workers",
    default=None,
    minimum=1,
    maximum=10_000,
    whole=True,
    does="How many ComfyUIs to start. Without it one for each GPU of the cluster.",
)
GPUS = Number(name="gpus", default=1.0, minimum=0, maximum=64, does="GPUs of each; 0: it runs on the CPU.")
OPTIONS = Texts(
    name="options", default=(), least=0, most=100, longest=MOST_TEXT, does="More options for ComfyUI's main.py."
)
CLUSTER = (COMFYUI, PYTHON, WORKERS, GPUS, OPTIONS)

# --- on the command line ---

FILE = Text(name="file", does="The sweep: a TOML file with prompts, seeds, settings and axes (docs/sweep.md).")
SEARCH_FILE = Text(name="file", does="The search: a TOML file with prompts, search and settings (docs/sweep.md).")
OUTPUT = Text(name="output", default=None, does="The folder of what comes out; what is in it already is not redone.")
SERVERS = Text(name="server", default=None, does="A ComfyUI to draw on; name several to draw on all of them.")
RAY = Text(
    name="ray",
    default=None,
    does="The address of a Ray cluster to draw on, as ray.init takes it, or local. Needs nag-pag-flux[cluster].",
)
OPTIONS_OF_COMMAND = (OUTPUT, SERVERS, RAY)

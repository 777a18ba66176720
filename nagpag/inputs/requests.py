"""What HTTP and the command line ask beside the guidance node's own inputs: what to draw, how, and on which files."""

from __future__ import annotations

import dataclasses

from ..blocks import PUBLISHED
from . import guidance
from .guidance import ADVANCED, BLOCKS, MOST_SPEC, SAVED_WIDGETS
from .kinds import SEEDS, Choice, Flag, Input, Number, Text, Texts

MOST_TEXT = 10_000

# --- what the picture shows ---

PROMPT = Text(name="prompt", most=MOST_TEXT, does="What the picture shows.", target=("CLIPTextEncode", "text"))
NEGATIVE_PROMPT = Text(
    name="negative_prompt",
    default=None,
    most=MOST_TEXT,
    does="What the picture is pushed away from, at about a tenth of a step at 20 steps; an empty text is what the "
    "model draws without a prompt. The negative branch carries it. null: an "
    "empty one, but none where it is said how a branch is disturbed instead: by "
    "nag_pag_applied_layers, nag_pag_negative, nag_pag_temperature or nag_pag_perturbation.",
)
IMAGE_URL = Text(
    name="image_url",
    does="The picture to start from: an http or https URL, a data: URI, or the name of a file in ComfyUI's input "
    "folder.",
    target=("LoadImage", "image"),
)
STRENGTH = Number(
    name="strength",
    default=0.8,
    minimum=0,
    maximum=1,
    does="How much of the picture is made anew: 0 keeps it, 1 ignores it. Between 0 and 0.01 counts as 0.01.",
    target=("KSampler", "denoise"),
)
WIDTH, HEIGHT = (
    Number(
        name=name,
        default=1024,
        minimum=64,
        maximum=4096,
        whole=True,
        multiple_of=16,
        does=f"The picture's {name} in pixels.",
        target=("", name),
    )
    for name in ("width", "height")
)
NUM_IMAGES = Number(
    name="num_images",
    default=1,
    minimum=1,
    maximum=8,
    whole=True,
    does="Pictures made at once, as one batch from one seed.",
)

# --- how it is sampled ---

STEPS = Number(
    name="num_inference_steps",
    default=20,
    minimum=1,
    maximum=200,
    whole=True,
    does="Steps of the sampler.",
    target=("KSampler", "steps"),
)
DISTILLED_GUIDANCE = Number(
    name="guidance_scale",
    default=3.5,
    minimum=0,
    maximum=100,
    does="FLUX's distilled guidance. Models without that input, such as FLUX.1 [schnell], ignore it.",
    target=("FluxGuidance", "guidance"),
)
SEED = Number(
    name="seed",
    default=None,
    minimum=0,
    maximum=SEEDS - 1,
    whole=True,
    does="The same seed and settings give the same picture. null: drawn, and told in the answer.",
    target=("KSampler", "seed"),
)
SAMPLER = Text(
    name="sampler_name",
    default="euler",
    most=100,
    does="A sampler of ComfyUI's KSampler.",
    target=("KSampler", "sampler_name"),
)
SCHEDULER = Text(
    name="scheduler",
    default="simple",
    most=100,
    does="A scheduler of ComfyUI's KSampler.",
    target=("KSampler", "scheduler"),
)

# --- how it is guided: the node's inputs under names of their own ---

LAYERS = Texts(
    name="nag_pag_applied_layers",
    # A promise: they stay, whatever the node's own default is.
    default=tuple(f"transformer_blocks.{block}.attn" for block in PUBLISHED),
    least=1,
    most=100,
    longest=MOST_SPEC,
    does="Which blocks are disturbed where there is no negative_prompt: names, numbers or ranges, or the one "
    f"item auto or all. Without it the published ones, or auto where the model lacks them; the node's own default "
    f"is auto. {BLOCKS.does}",
    target=(ADVANCED.id, BLOCKS.name),
)


def _of_guidance(item: Input) -> Input:
    return dataclasses.replace(item, name=f"nag_pag_{item.name}", target=(ADVANCED.id, item.name))


# By the node's name for it; what names blocks is LAYERS, and a socket carries no plain value.
GUIDANCE_FIELDS = {item.name: _of_guidance(item) for item in SAVED_WIDGETS if item is not BLOCKS}

# Fields that say how a branch without a negative prompt is disturbed.
DISTURBING = {LAYERS.name, *(GUIDANCE_FIELDS[item.name].name for item in guidance.DISTURBING if item is not BLOCKS)}

# --- on which files ---

_FOUND = "null: found among the installed files, FLUX.1 [dev] first."


def _file(name: str, what: str, target: tuple[str, str]) -> Text:
    return Text(name=name, default=None, least=1, most=1000, does=f"{what} {_FOUND}", target=target)


FILES = (
    _file("diffusion_model", "The model's file in diffusion_models.", ("UNETLoader", "unet_name")),
    _file("clip_l", "The CLIP-L text encoder's file in text_encoders.", ("DualCLIPLoader", "clip_name1")),
    _file("t5xxl", "The T5-XXL text encoder's file in text_encoders.", ("DualCLIPLoader", "clip_name2")),
    _file("vae", "The autoencoder's file in vae, or taef1.", ("VAELoader", "vae_name")),
)
WEIGHT_DTYPE = Choice(
    name="weight_dtype",
    default="default",
    options=("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"),
    does="How the model's weights are kept in memory, as in ComfyUI's loader.",
    target=("UNETLoader", "weight_dtype"),
)
CLIP_TYPE = Choice(
    name="clip_type",
    default="flux",
    options=("flux", "sd3"),
    does="How the two text encoders are read. sd3 takes the CLIP-L file in T5-XXL's place, too: little memory, but a "
    "poor reading of the prompt.",
    target=("DualCLIPLoader", "type"),
)

# --- how it is answered ---

NUMBERS = Flag(
    name="numbers",
    default=False,
    does="Also tell what guidance did at each step, as NAG-PAG Plot does. It draws its plot for that, in about half a "
    "second, and needs matplotlib.",
)
WAIT = Flag(
    name="wait",
    default=True,
    does="true: answer when the pictures are there. false: at once, with the URL to ask.",
)
CLIENT_ID = Text(
    name="client_id",
    default=None,
    most=200,
    does="Progress and previews go to the websocket /ws?clientId=… of this name, as for any prompt.",
)

# --- on the command line alone ---

OUTPUT = Text(name="output", default=".", does="A folder, or a file's name ending in .png.")
COMPARE = Flag(name="compare", default=False, does="Also run the same seed unguided, and write both side by side.")
SERVER = Text(name="server", default=None, does="The ComfyUI to ask.")
JSON = Flag(name="json", default=False, does="Print JSON, for programs.")
CHECKPOINT = Text(name="checkpoint", does="A .safetensors file.")
FOLDER = Text(name="folder", default=None, does="Where the pictures go.")

# --- on the command line, for a graph of one's own ---

GRAPH = Text(name="graph", does="The graph's file, as ComfyUI's Export (API) writes it.")
_STAYS = "Without it the graph's own"
GRAPH_PROMPT = dataclasses.replace(PROMPT, default=None, target=None, does=f"What the picture shows. {_STAYS}.")
GRAPH_NEGATIVE = dataclasses.replace(
    NEGATIVE_PROMPT, does=f"The sampler's negative prompt, which the negative branch carries. {_STAYS}."
)
GRAPH_SEED = dataclasses.replace(SEED, target=None, does=f"Of all the graph's noise. {_STAYS}.")
GRAPH_STEPS = dataclasses.replace(STEPS, default=None, target=None, does=f"Steps of the sampler. {_STAYS}.")
GRAPH_LAYERS = dataclasses.replace(LAYERS, default=(BLOCKS.default,), does=BLOCKS.does)
GRAPH_OUTPUT = Text(
    name="output", default=".", does="A folder, or a file's name; what is saved keeps the ending that the graph gives."
)
# Every input of the guidance node.
GRAPH_GUIDANCE: dict[str, Input] = {
    item.name: GRAPH_LAYERS if item is BLOCKS else _of_guidance(item) for item in ADVANCED.widgets
}
OPTIONS_OF_GRAPH: tuple[Input, ...] = (
    *(GRAPH, GRAPH_PROMPT, GRAPH_NEGATIVE, GRAPH_SEED, GRAPH_STEPS),
    *GRAPH_GUIDANCE.values(),
    *(GRAPH_OUTPUT, WAIT, SERVER),
)

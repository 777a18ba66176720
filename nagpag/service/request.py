"""What can be asked of the service: one table of names, defaults and ranges.

The request models, the OpenAPI document, the command line's options and docs/api.md follow this table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .. import blocks, config

REQUIRED = object()
KINDS = {"text": str, "whole": int, "number": float, "flag": bool, "texts": list}


@dataclass(frozen=True)
class Field:
    """One field of a request.

    kind: a key of KINDS. default: REQUIRED, or what it is where it is not given; a default of None also makes null
    a valid value. minimum, maximum: inclusive, of a number or of a text's or list's length. target: the node's class
    in the shipped graph and the input that the value goes to.
    """

    name: str
    kind: str
    default: object
    description: str
    minimum: float | None = None
    maximum: float | None = None
    multiple_of: int | None = None
    options: tuple[str, ...] = ()
    target: tuple[str, str] | None = None

    @property
    def required(self) -> bool:
        """True where a request without it is refused."""
        return self.default is REQUIRED

    @property
    def nullable(self) -> bool:
        """True where null is a valid value."""
        return self.default is None

    def rule(self) -> str:
        """What is valid, in words."""
        return self._values() + (" or null" if self.nullable else "")

    def _values(self) -> str:
        if self.options:
            return "one of " + ", ".join(map(repr, self.options))
        if self.kind == "flag":
            return "true or false"
        if self.kind == "texts":
            return f"a list of {self.minimum:g} to {self.maximum:g} texts"
        if self.kind == "text":
            return "a text" if self.maximum is None else f"a text of at most {self.maximum:g} characters"
        whole = "whole " if self.kind == "whole" else ""
        multiple = f", a multiple of {self.multiple_of}" if self.multiple_of else ""
        return f"a {whole}number from {_plain(self.minimum)} to {_plain(self.maximum)}{multiple}"


def _plain(number: float | None) -> str:
    return str(int(number)) if number == int(number or 0) else str(number)


# --- the node's own inputs, as fields ---


def _of_node(item: config.Input) -> Field:
    """The field nag_pag_<name> of one of the node's inputs."""
    name, target = f"nag_pag_{item.name}", (config.NODE_ID, item.name)
    if isinstance(item, config.Number):
        kind = "whole" if isinstance(item.default, int) else "number"
        return Field(name, kind, item.default, item.tooltip, item.minimum, item.maximum, target=target)
    if isinstance(item, config.Choice):
        return Field(name, "text", item.default, item.tooltip, options=item.options, target=target)
    if isinstance(item.default, bool):
        return Field(name, "flag", item.default, item.tooltip, target=target)
    return Field(name, "text", item.default, item.tooltip, maximum=MOST_TEXT, target=target)


def _has_a_field(item: object) -> bool:
    """False for the input that is named otherwise here, and for sockets, which carry no plain value."""
    return item is not config.BLOCKS and isinstance(getattr(item, "default", None), (bool, int, float, str))


MOST_TEXT = 10_000
# Of FLUX.1's 19 double blocks, as the method was published. A promise: it stays, whatever the node's own default is.
PUBLISHED_BLOCKS = (8, 12, 16)
LAYERS = Field(
    "nag_pag_applied_layers",
    "texts",
    tuple(f"transformer_blocks.{block}.attn" for block in PUBLISHED_BLOCKS),
    "Which double blocks are guided: names, numbers or ranges, or the one item auto or all. Without it the "
    "published ones; the node's own default is auto. " + config.BLOCKS.tooltip,
    1,
    100,
    target=(config.NODE_ID, config.BLOCKS.name),
)
_NODE = {item.name: _of_node(item) for item in config.INPUTS if _has_a_field(item)}

# --- the table ---

PROMPT = Field(
    "prompt", "text", REQUIRED, "What the picture shows.", maximum=MOST_TEXT, target=("CLIPTextEncode", "text")
)
IMAGE_URL = Field(
    "image_url",
    "text",
    REQUIRED,
    "The picture to start from: an http or https URL, a data: URI, or the name of a file in ComfyUI's input folder.",
    target=("LoadImage", "image"),
)
STRENGTH = Field(
    "strength",
    "number",
    0.8,
    "How much of the picture is made anew: 0 keeps it, 1 ignores it. Between 0 and 0.01 counts as 0.01.",
    0,
    1,
    target=("KSampler", "denoise"),
)


def _size(name: str) -> Field:
    return Field(name, "whole", 1024, f"The picture's {name} in pixels.", 64, 4096, 16, target=("", name))


SAMPLING = (
    Field("num_inference_steps", "whole", 20, "Steps of the sampler.", 1, 200, target=("KSampler", "steps")),
    Field(
        "guidance_scale",
        "number",
        3.5,
        "FLUX's distilled guidance. Models without that input, such as FLUX.1 [schnell], ignore it.",
        0,
        100,
        target=("FluxGuidance", "guidance"),
    ),
)
SEED = Field(
    "seed",
    "whole",
    None,
    "The same seed and settings give the same picture. null: drawn, and told in the answer.",
    0,
    2**64 - 1,
    target=("KSampler", "seed"),
)
NUM_IMAGES = Field("num_images", "whole", 1, "Pictures made at once, as one batch from one seed.", 1, 8)
SAMPLER = (
    Field("sampler_name", "text", "euler", "A sampler of ComfyUI's KSampler.", maximum=100,
          target=("KSampler", "sampler_name")),
    Field("scheduler", "text", "simple", "A scheduler of ComfyUI's KSampler.", maximum=100,
          target=("KSampler", "scheduler")),
)  # fmt: skip
_FOUND = "null: found among the installed files, FLUX.1 [dev] first."


def _file(name: str, what: str, target: tuple[str, str]) -> Field:
    return Field(name, "text", None, f"{what} {_FOUND}", 1, 1000, target=target)


FILES = (
    _file("diffusion_model", "The model's file in diffusion_models.", ("UNETLoader", "unet_name")),
    _file("clip_l", "The CLIP-L text encoder's file in text_encoders.", ("DualCLIPLoader", "clip_name1")),
    _file("t5xxl", "The T5-XXL text encoder's file in text_encoders.", ("DualCLIPLoader", "clip_name2")),
    _file("vae", "The autoencoder's file in vae, or taef1.", ("VAELoader", "vae_name")),
)
LOADING = (
    Field(
        "weight_dtype",
        "text",
        "default",
        "How the model's weights are kept in memory, as in ComfyUI's loader.",
        options=("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"),
        target=("UNETLoader", "weight_dtype"),
    ),
    Field(
        "clip_type",
        "text",
        "flux",
        "How the two text encoders are read. sd3 takes the CLIP-L file in T5-XXL's place, too: little memory, but a "
        "poor reading of the prompt.",
        options=("flux", "sd3"),
        target=("DualCLIPLoader", "type"),
    ),
)
WAIT = Field("wait", "flag", True, "true: answer when the pictures are there. false: at once, with the URL to ask.")
CLIENT_ID = Field(
    "client_id",
    "text",
    None,
    "Progress and previews go to the websocket /ws?clientId=… of this name, as for any prompt.",
    maximum=200,
)

_FIRST_OF_NODE = ("scale",)
TEXT_TO_IMAGE: tuple[Field, ...] = (
    PROMPT,
    _size("width"),
    _size("height"),
    *SAMPLING,
    *(_NODE[name] for name in _FIRST_OF_NODE),
    LAYERS,
    SEED,
    *(field for name, field in _NODE.items() if name not in _FIRST_OF_NODE),
    NUM_IMAGES,
    *SAMPLER,
    *FILES,
    *LOADING,
    WAIT,
    CLIENT_ID,
)
IMAGE_TO_IMAGE: tuple[Field, ...] = (PROMPT, IMAGE_URL, STRENGTH, *TEXT_TO_IMAGE[1:])
# Path and command: the shipped graph that runs, and the fields.
ENDPOINTS = {
    "text-to-image": ("flux_dev_text_to_image", TEXT_TO_IMAGE),
    "image-to-image": ("flux_dev_image_to_image", IMAGE_TO_IMAGE),
}
# A picture of 32 MiB as a data: URI is a third larger.
MOST_BODY = {"text-to-image": 2**20, "image-to-image": 45 * 2**20}


def layers_as_spec(layers: Iterable[str]) -> str:
    """The list as the node's block spec, such as "8, double_blocks.12"."""
    return ", ".join(layers)


def problems_between(values: dict) -> list[tuple[str, str]]:
    """(field, rule) where fields that are valid by themselves don't go together, or a layer's name means nothing."""
    found = [
        (f"{LAYERS.name}/{i}", rule) for i, layer in enumerate(values[LAYERS.name]) if (rule := _spec_problem(layer))
    ]
    if not found and (rule := _spec_problem(layers_as_spec(values[LAYERS.name]))):
        found.append((LAYERS.name, rule))
    if values["nag_pag_start_percent"] > values["nag_pag_end_percent"]:
        found.append(("nag_pag_start_percent", "at most nag_pag_end_percent, or guidance would never be on"))
    return found


def _spec_problem(spec: str) -> str | None:
    try:
        blocks.check_spec(spec)
    except ValueError as error:
        return str(error)
    return None

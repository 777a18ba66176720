"""Small models of the families beside FLUX, and what the oracles know of each: none of it is asked of our code."""

import dataclasses
import importlib
from dataclasses import dataclass, field
from types import SimpleNamespace

import comfy.sample
import torch
from comfy.ldm.lightricks.symmetric_patchifier import SymmetricPatchifier, latent_to_pixel_coords
from comfy.nested_tensor import NestedTensor
from nag_pag_flux.lab.toy import small_families


@dataclass(frozen=True, eq=False)
class Case:
    """A family. small: its model in lab/toy/small_families.py. module, attention: where its blocks look the host's
    attention up, under one name or two; split: whether it is given heads apart. stack: the model's blocks; img: where
    in what a block returns the picture's stream is, None where that is all, and -1 where a branch can't be run.

    latent: of one picture, (channels, …, height, width), of odd sides; grid: its tokens. context: features of a text.
    reference: extras of a prompt with reference pictures; behind, ahead: how many tokens of those stand behind the
    picture and before it; mask: a noise mask; given: tokens of a video's first frame where that gives it, just before
    the picture; keyframes: tokens of those in the sequence, behind the picture.
    names: of block 2 in specs. missing: what is said of block 60. pad: to a multiple of what the picture's tokens are
    filled up in the attention's sequence. attentions: where the host does not say it, the block of each of a forward's
    calls of the attention, None where that is not the one to be guided. reaches: those that work. another: whether it
    is but another model of its family. kind: what stands before "block". singles: how many single blocks there are,
    in second, after which reach "output" merges. of_text: what else each prompt has, by name: a shape of its own
    numbers, or a value; hidden: how many of its last tokens its mask hides, None without one. audio: the latent of the
    sound that is made with a video; sound: its tokens in the sequence, between text and picture. rows: the most rows of
    a forward that every host runs with what the user gives; pictures: the most of a batch that any runs.
    """

    small: str
    family: str
    module: str
    attention: str
    split: bool
    stack: str
    img: int | None
    latent: tuple
    grid: tuple
    context: int
    names: tuple
    missing: str
    reference: dict | None = None
    behind: int = 0
    ahead: int = 0
    given: int = 0
    mask: torch.Tensor | None = None
    keyframes: int = 0
    pad: int = 1
    attentions: tuple = ()
    reaches: tuple = ("attention", "double blocks", "output", "prediction")
    another: bool = False
    kind: str = ""
    singles: int = 0
    second: str = "single_blocks"
    picture_first: bool = False
    audio: tuple = ()
    of_text: dict = field(default_factory=dict)
    hidden: int | None = None
    rows: int = 4
    sound: int = 0
    pictures: int = 4

    @property
    def last(self):
        """Where reach "output" merges."""
        return ("single", self.singles - 1) if self.singles else 3

    def at_most(self, batch, extra):
        """How many pictures of a batch a test draws, with references or without."""
        return min(batch, self.rows) if extra or self.given else batch

    @property
    def tokens(self):
        return torch.Size(self.grid).numel()

    def __str__(self):
        return self.small


def noise_mask(*frames):
    """What is made of each frame."""
    return torch.tensor(frames, dtype=torch.float32).reshape(1, 1, -1, 1, 1)


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


QWEN = Case(
    small="Qwen-Image",
    family="Qwen-Image",
    module="comfy.ldm.qwen_image.model",
    attention="optimized_attention_masked",
    split=True,
    stack="transformer_blocks",
    img=1,
    latent=(16, 1, 9, 13),
    grid=(1, 5, 7),
    context=64,
    names=("transformer_blocks.2", "transformer_blocks.2.attn"),
    missing="block 60 does not exist: Qwen-Image has blocks 0 to 3",
    reference={"reference_latents": [some(1, 16, 1, 6, 8, seed=20)]},
    behind=12,
)
QWEN_2511 = dataclasses.replace(QWEN, small="Qwen-Image-Edit 2511", another=True)
# Its layers are what frames are to others.
LAYERED = dataclasses.replace(QWEN, small="Qwen-Image-Layered", another=True, latent=(16, 3, 9, 13), grid=(3, 5, 7))
LUMINA = Case(
    small="Lumina 2",
    family="Z-Image and Lumina 2",
    module="comfy.ldm.lumina.model",
    attention="optimized_attention_masked",
    split=True,
    stack="layers",
    img=None,
    latent=(16, 9, 13),
    grid=(5, 7),
    context=48,
    names=("layers.2", "layers.2.attention"),
    missing="block 60 does not exist: this model has blocks 0 to 3",
    reaches=("attention", "prediction"),
)
Z_IMAGE = dataclasses.replace(
    LUMINA,
    small="Z-Image",
    pad=32,
    reference={"reference_latents": [some(1, 16, 6, 8, seed=20)]},
    ahead=32,
)
WAN = Case(
    small="Wan 2.1",
    family="Wan",
    module="comfy.ldm.wan.model",
    attention="optimized_attention",
    split=False,
    stack="blocks",
    img=None,
    latent=(16, 3, 9, 13),
    grid=(3, 5, 7),
    context=48,
    names=("blocks.2", "blocks.2.attn1"),
    missing="block 60 does not exist: this model has blocks 0 to 3",
)
# The first picture, as CLIP sees it and beside the noise.
FIRST_PICTURE = {
    "concat_latent_image": some(1, 16, 3, 9, 13, seed=21),
    "clip_vision_output": SimpleNamespace(penultimate_hidden_states=some(1, 6, 1280, seed=22)),
}
WAN_PICTURE = dataclasses.replace(WAN, small="Wan 2.1 image to video", another=True, reference=FIRST_PICTURE)
WAN_REFERENCE = dataclasses.replace(
    WAN,
    small="Wan 2.1 with a reference",
    another=True,
    reference={"reference_latents": [some(1, 16, 1, 10, 14, seed=23)]},
    ahead=35,
)
WAN_FRAME_BEHIND = dataclasses.replace(
    WAN, another=True, reference={"time_dim_concat": some(1, 16, 1, 9, 13, seed=24)}, behind=35
)
# Of three frames the first is given, by a noise mask and by no prompt.
WAN_5B = dataclasses.replace(
    WAN,
    small="Wan 2.2 5B",
    another=True,
    latent=(48, 3, 9, 13),
    grid=(2, 5, 7),
    reference={},
    given=35,
    mask=noise_mask(0, 1, 1),
)
# The reference stands before the first frame.
HUNYUAN = Case(
    small="HunyuanVideo",
    family="HunyuanVideo and Hunyuan Image",
    module="comfy.ldm.flux.math",
    attention="optimized_attention",
    split=True,
    stack="double_blocks",
    img=0,
    latent=(16, 3, 6, 10),
    grid=(3, 3, 5),
    context=48,
    names=("double_blocks.2", "transformer_blocks.2", "transformer_blocks.2.attn"),
    missing="block 60 does not exist: this model has double blocks 0 to 3 and single blocks s0 to s1",
    reference={"ref_latent": some(1, 16, 1, 4, 6, seed=20)},
    ahead=6,
    kind="double ",
    singles=2,
    of_text={"pooled_output": (1, 32)},
    rows=1,
)
# Of three frames the first is the user's, by a noise mask and by the prompt.
HUNYUAN_FRAME = dataclasses.replace(
    HUNYUAN,
    another=True,
    grid=(2, 3, 5),
    reference={},
    ahead=0,
    given=15,
    mask=noise_mask(0, 1, 1),
    of_text={"pooled_output": (1, 32), "guiding_frame_index": 0},
)
HUNYUAN_15 = dataclasses.replace(
    HUNYUAN,
    small="HunyuanVideo 1.5",
    another=True,
    latent=(32, 2, 5, 7),
    grid=(2, 5, 7),
    reference={
        "concat_latent_image": some(1, 32, 2, 5, 7, seed=21),
        "clip_vision_output": SimpleNamespace(last_hidden_state=some(1, 6, 1152, seed=22)),
    },
    ahead=0,
    rows=4,
    singles=0,
    of_text={"pooled_output": None, "conditioning_byt5small": (1, 4, 1472)},
)
HUNYUAN_IMAGE = dataclasses.replace(
    HUNYUAN_15, small="Hunyuan Image 2.1", latent=(64, 5, 7), grid=(5, 7), reference=None, singles=2
)
# The user's picture stands beside the noise.
HUNYUAN_PICTURE = dataclasses.replace(
    HUNYUAN,
    small="HunyuanVideo image to video",
    another=True,
    reference={"concat_latent_image": some(1, 16, 3, 6, 10, seed=21), "concat_mask": torch.zeros(1, 1, 3, 6, 10)},
    ahead=0,
    rows=4,
)
HUNYUAN_SKYREELS = dataclasses.replace(
    HUNYUAN_PICTURE,
    small="HunyuanVideo SkyReels",
    reference={"concat_latent_image": some(1, 16, 3, 6, 10, seed=21)},
)
HUNYUAN_REFINER = dataclasses.replace(
    HUNYUAN_PICTURE,
    small="Hunyuan Image 2.1 refiner",
    latent=(64, 1, 5, 7),
    grid=(1, 5, 7),
    reference={"concat_latent_image": some(1, 32, 1, 5, 7, seed=21)},
    of_text={"pooled_output": None},
)
SD3 = Case(
    small="SD 3.5 Medium",
    family="SD 3",
    module="comfy.ldm.modules.diffusionmodules.mmdit",
    attention="optimized_attention",
    split=False,
    stack="joint_blocks",
    img=1,
    latent=(16, 9, 13),
    grid=(5, 7),
    context=48,
    names=("joint_blocks.2", "transformer_blocks.2", "transformer_blocks.2.attn"),
    missing="block 60 does not exist: this model has blocks 0 to 3",
    of_text={"pooled_output": (1, 32)},
    attentions=(0, None, 1, None, 2, 3),
)
SD3_LARGE = dataclasses.replace(SD3, small="SD 3.5 Large", another=True, reference={}, attentions=(0, 1, 2, 3))
SD3_REGISTERS = dataclasses.replace(
    SD3, small="SD 3 with registers", another=True, reference={}, attentions=(None, 0, 1, 2, 3)
)
LTXV = Case(
    small="LTXV",
    family="LTXV",
    module="comfy.ldm.modules.attention",
    attention="optimized_attention optimized_attention_masked",
    split=False,
    stack="transformer_blocks",
    img=None,
    latent=(128, 3, 5, 7),
    grid=(3, 5, 7),
    context=48,
    names=("transformer_blocks.2", "transformer_blocks.2.attn1"),
    missing="block 60 does not exist: this model has blocks 0 to 3",
    hidden=2,
    attentions=(0, None, 1, None, 2, None, 3, None),
)
LTXV_PICTURE = dataclasses.replace(LTXV, another=True, grid=(2, 5, 7), reference={}, given=35, mask=noise_mask(0, 1, 1))

# A first frame that is weakened is made like the others.
LTXV_WEAK_PICTURE = dataclasses.replace(LTXV, another=True, reference={}, mask=noise_mask(0.3, 1, 1))


def keyframe(strength):
    """What LTXVAddGuide gives a prompt for one frame, the video's third."""
    coords = SymmetricPatchifier(1, start_end=True).patchify(torch.zeros(1, 128, 1, 5, 7))[1]
    coords = latent_to_pixel_coords(coords, (8, 32, 32), causal_fix=True)
    coords[:, 0] += 9
    entry = {"pre_filter_count": 35, "strength": strength, "pixel_mask": None, "latent_shape": [1, 5, 7]}
    return {"keyframe_idxs": coords, "guide_attention_entries": [entry]}


LTXV_KEYFRAME = dataclasses.replace(
    LTXV,
    another=True,
    latent=(128, 4, 5, 7),
    reference={},
    mask=noise_mask(1, 1, 1, 0),
    keyframes=35,
    of_text=keyframe(1.0),
)
# Beside a first frame, and with a mask that weakens it in the attention.
LTXV_GUIDE = dataclasses.replace(
    LTXV_KEYFRAME, grid=(2, 5, 7), given=35, mask=noise_mask(0, 1, 1, 0.4), of_text=keyframe(0.6)
)
# Smaller than the video: of its tokens most are not in the sequence.
SPARSE = torch.full((1, 1, 4, 5, 7), 1.0)
SPARSE[:, :, 3] = -1.6
SPARSE[:, :, 3, ::2, ::2] = 0.4
LTX2 = dataclasses.replace(
    LTXV,
    small="LTX-2",
    family="LTX-2",
    context=96,
    missing="block 60 does not exist: LTX-2 has blocks 0 to 3",
    audio=(8, 6, 16),
    reaches=("attention", "prediction"),
    attentions=tuple(block for i in range(4) for block in (i, *[None] * 5)),
)
LTX2_GUIDE = dataclasses.replace(
    LTX2,
    another=True,
    latent=(128, 4, 5, 7),
    grid=(2, 5, 7),
    reference={},
    given=35,
    keyframes=35,
    mask=noise_mask(0, 1, 1, 0.4),
    of_text=keyframe(0.6),
)
LTXV_SPARSE = dataclasses.replace(LTXV_KEYFRAME, keyframes=12, mask=SPARSE, of_text=keyframe(0.6))
AURAFLOW = Case(
    small="AuraFlow",
    family="AuraFlow",
    module="comfy.ldm.aura.mmdit",
    attention="optimized_attention",
    split=True,
    stack="double_layers",
    img=1,
    latent=(4, 9, 13),
    grid=(5, 7),
    context=2048,
    names=("double_layers.2", "joint_transformer_blocks.2", "joint_transformer_blocks.2.attn"),
    missing="block 60 does not exist: this model has double blocks 0 to 3 and single blocks s0 to s1",
    kind="double ",
    singles=2,
    second="single_layers",
    attentions=(0, 1, 2, 3, ("single", 0), ("single", 1)),
)
OMNIGEN = Case(
    small="OmniGen 2",
    family="OmniGen 2",
    module="comfy.ldm.omnigen.omnigen2",
    attention="optimized_attention_masked",
    split=True,
    stack="layers",
    img=None,
    latent=(16, 9, 13),
    grid=(5, 7),
    context=48,
    names=("layers.2", "layers.2.attn"),
    missing="block 60 does not exist: OmniGen 2 has blocks 0 to 3",
    hidden=0,
    reaches=("attention", "prediction"),
    attentions=(None, None, 0, 1, 2, 3),
)
OMNIGEN_REFERENCE = dataclasses.replace(
    OMNIGEN,
    another=True,
    reference={"reference_latents": [some(1, 16, 5, 8, seed=20)]},
    ahead=12,
    attentions=(None, None, None, 0, 1, 2, 3),
)
LENS = Case(
    small="Lens",
    family="Lens",
    module="comfy.ldm.lens.model",
    attention="optimized_attention",
    split=True,
    stack="transformer_blocks",
    img=1,
    latent=(128, 5, 7),
    grid=(5, 7),
    context=48,
    names=("transformer_blocks.2", "transformer_blocks.2.attn"),
    missing="block 60 does not exist: Lens has blocks 0 to 3",
    hidden=2,
    picture_first=True,
)
KANDINSKY = Case(
    small="Kandinsky 5",
    family="Kandinsky 5",
    module="comfy.ldm.kandinsky5.model",
    attention="optimized_attention",
    split=True,
    stack="visual_transformer_blocks",
    img=None,
    latent=(16, 3, 6, 10),
    grid=(3, 3, 5),
    context=48,
    names=("visual_transformer_blocks.2", "visual_transformer_blocks.2.self_attention"),
    missing="block 60 does not exist: Kandinsky 5 has blocks 0 to 3",
    of_text={"pooled_output": (1, 32)},
    reaches=("attention", "prediction"),
)
# Of three frames the first is the user's, put in the noise's place.
KANDINSKY_FRAME = dataclasses.replace(
    KANDINSKY,
    another=True,
    grid=(2, 3, 5),
    reference={},
    given=15,
    mask=noise_mask(0, 1, 1),
    of_text={
        "pooled_output": (1, 32),
        "time_dim_replace": some(1, 16, 1, 6, 10, seed=25),
        "concat_mask": torch.cat((torch.zeros(1, 1, 1, 6, 10), torch.ones(1, 1, 2, 6, 10)), 2),
    },
)
COSMOS = Case(
    small="Cosmos Predict 2",
    family="Cosmos Predict 2 and Anima",
    module="comfy.ldm.cosmos.predict2",
    attention="optimized_attention",
    split=True,
    stack="blocks",
    img=None,
    latent=(16, 3, 9, 13),
    grid=(3, 5, 7),
    context=48,
    names=("blocks.2", "blocks.2.self_attn", "transformer_blocks.2", "transformer_blocks.2.attn1"),
    missing="block 60 does not exist: this model has blocks 0 to 3",
    reaches=("attention", "prediction"),
)
COSMOS_FRAME = dataclasses.replace(
    COSMOS, another=True, grid=(2, 5, 7), reference={}, given=35, mask=noise_mask(0, 1, 1)
)
# Between a first picture and a last one.
COSMOS_BETWEEN = dataclasses.replace(COSMOS_FRAME, grid=(1, 5, 7), keyframes=35, mask=noise_mask(0, 1, 0))
ANIMA = dataclasses.replace(COSMOS, small="Anima", another=True, latent=(16, 1, 9, 13), grid=(1, 5, 7), reference={})
KREA_2 = Case(
    small="Krea 2",
    family="Krea 2",
    module="comfy.ldm.krea2.model",
    attention="optimized_attention_masked",
    split=True,
    stack="blocks",
    img=None,
    latent=(16, 1, 9, 13),
    grid=(1, 5, 7),
    context=48,
    names=("blocks.2", "blocks.2.attn", "transformer_blocks.2", "transformer_blocks.2.attn"),
    missing="block 60 does not exist: Krea 2 has blocks 0 to 3",
    reference={"reference_latents": [some(1, 16, 1, 6, 8, seed=20)], "reference_latents_method": "index"},
    behind=12,
    reaches=("attention", "prediction"),
)

# The sound stands between text and video, and the host counts no blocks. A video of odd sides is filled up.
MINIMAX = Case(
    small="MiniMax H3",
    family="MiniMax H3",
    module="comfy.ldm.minimax.model",
    attention="optimized_attention",
    split=True,
    stack="blocks",
    img=None,
    latent=(24, 2, 9, 13),
    grid=(2, 5, 7),
    context=48,
    names=("blocks.2", "blocks.2.attn"),
    missing="block 60 does not exist: MiniMax H3 has blocks 0 to 3",
    audio=(32, 2, 8),
    sound=16,
    pictures=1,
    reaches=("attention", "prediction"),
    attentions=(0, 1, 2, 3),
)
MINIMAX_KEYFRAMES = dataclasses.replace(
    MINIMAX,
    another=True,
    reference={
        "minimax_keyframes": [
            {"resolved_frame_index": 0, "latent": some(1, 24, 1, 10, 14, seed=26)},
            {"resolved_frame_index": 4, "latent": some(1, 24, 1, 10, 14, seed=27)},
        ],
        "minimax_frame_count": 5,
    },
    ahead=70,
)
# A picture, and a video with sound.
MINIMAX_REFERENCES = dataclasses.replace(
    MINIMAX,
    another=True,
    reference={
        "minimax_refs": [
            {"kind": "image", "latent": some(1, 24, 1, 6, 8, seed=28), "latent_h": 6, "latent_w": 8},
            {
                "kind": "video_audio",
                "latent": some(1, 24, 2, 4, 6, seed=29),
                "audio_latent": some(1, 32, 2, 3, seed=30),
                "latent_t": 2,
                "latent_h": 4,
                "latent_w": 6,
                "ref_audio_t": 3,
            },
        ]
    },
    ahead=12 + 12 + 6,
)

CASES = [
    *(QWEN, QWEN_2511, LAYERED, Z_IMAGE, dataclasses.replace(LUMINA, another=True)),
    *(WAN, WAN_PICTURE, WAN_REFERENCE, WAN_FRAME_BEHIND, WAN_5B),
    *(HUNYUAN, HUNYUAN_FRAME, HUNYUAN_15, HUNYUAN_IMAGE, HUNYUAN_PICTURE, HUNYUAN_SKYREELS, HUNYUAN_REFINER),
    *(SD3, SD3_LARGE, SD3_REGISTERS),
    *(LTXV, LTXV_PICTURE, LTXV_WEAK_PICTURE, LTXV_KEYFRAME, LTXV_GUIDE, LTXV_SPARSE),
    *(LTX2, LTX2_GUIDE),
    *(AURAFLOW, OMNIGEN, OMNIGEN_REFERENCE),
    *(LENS, dataclasses.replace(LENS, another=True, hidden=None, reference={})),
    *(KANDINSKY, KANDINSKY_FRAME, COSMOS, COSMOS_FRAME, COSMOS_BETWEEN, ANIMA, KREA_2),
    *(MINIMAX, MINIMAX_KEYFRAMES, MINIMAX_REFERENCES),
]
HERE = [case for case in CASES if small_families.host_has(case.small)]
for _case in CASES:
    if _case not in HERE:  # said, and not skipped: `make test` runs the newest host, which has them all
        print(f"\ntests/host/test_families.py: not {_case.small}, which this ComfyUI does not have")


def prompt(case, seed, tokens=9, **extra):
    """A conditioning; another seed is another prompt."""
    own = {n: some(*v, seed=seed + 100) if isinstance(v, tuple) else v for n, v in case.of_text.items()}
    if case.hidden is not None:
        own["attention_mask"] = (torch.arange(tokens) < tokens - case.hidden).long().unsqueeze(0)
    return [[some(1, tokens, case.context, seed=seed), {**own, **extra}]]


def sample(case, model, positive, negative, batch=1, cfg=1.0, steps=2):
    """KSampler's own path from an empty latent; of video and sound, one behind the other."""
    start = torch.zeros(min(batch, case.pictures), *case.latent)
    if case.audio:
        start = NestedTensor([start, torch.zeros(len(start), *case.audio)])
    noise, mask = comfy.sample.prepare_noise(start, 7), case.mask
    if mask is not None:
        mask = mask.expand(1, 1, *case.latent[1:])
    out = comfy.sample.sample(
        *(model, noise, steps, cfg, "euler", "simple", positive, negative, start),
        noise_mask=mask,
        disable_pbar=True,
        seed=7,
    )
    return torch.cat([part.flatten(1) for part in out.unbind()], 1) if case.audio else out


def attention_module(case):
    return importlib.import_module(case.module)

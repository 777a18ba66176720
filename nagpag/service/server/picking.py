"""Which of the installed model files a request runs on."""

from __future__ import annotations

from ...blocks import parse_blocks
from ...inputs.guidance import BLOCKS
from ...inputs.requests import LAYERS
from .. import checkpoint, models
from ..request import layers_as_spec
from . import host
from .problems import Problem, bad_fields, field_error
from .schema import Request

APPROXIMATE = "taef1"  # the stock loader's name for FLUX.1's preview autoencoder; taken where it is named, never found


def pick_all(asked: Request) -> dict[str, str]:
    """The file for each kind, as named in the request or found. Raises Problem that lists what is missing."""
    found = {file.field: getattr(asked, file.field) or picked(file) for file in models.FILES}
    missing = [file for file in models.FILES if not found[file.field]]
    if missing:
        raise Problem(
            "no-model-files",
            "; ".join(f"no {file.field} in models/{file.folder}: the official file is {file.name}" for file in missing),
            missing=[
                {"field": file.field, "folder": file.folder, "file": file.name, "link": file.url} for file in missing
            ],
        )
    return {field: name for field, name in found.items() if name}


def fit_blocks(asked: Request) -> Request:
    """The request, with blocks that the model has: auto where it lacks the default ones and none were asked for.

    asked: with its files' names. Raises Problem where the model's file says that it lacks a block which is asked for.
    What only the running model knows, such as its heads, it says itself.
    """
    depth = checkpoint.depth_of(host.model_path(models.FLUX.folder, getattr(asked, models.FLUX.field)))
    layers = getattr(asked, LAYERS.name)
    try:
        if depth:
            parse_blocks(layers_as_spec(layers), *depth)
    except ValueError as error:
        if LAYERS.name not in asked.model_fields_set:
            return asked.model_copy(update={LAYERS.name: [BLOCKS.default]})
        raise bad_fields([field_error(LAYERS.name, str(error), layers)]) from None
    return asked


def picked(file: models.File) -> str | None:
    """What is taken where nothing is named."""
    return models.pick(file, host.installed(file.folder), lambda name: host.model_path(file.folder, name))


def overview() -> dict[str, dict]:
    """For each kind: what would be picked, what there is, the official file."""
    return {
        file.field: {
            "picked": picked(file),
            "installed": host.installed(file.folder) + (_approximate() if file is models.VAE else []),
            "folder": file.folder,
            "official": file.name,
            "link": file.url,
        }
        for file in models.FILES
    }


def _approximate() -> list[str]:
    parts = {name.partition(".")[0] for name in host.installed("vae_approx")}
    return [APPROXIMATE] if {f"{APPROXIMATE}_encoder", f"{APPROXIMATE}_decoder"} <= parts else []

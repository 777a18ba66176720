"""Stand-ins for the vendors' drawings, so that tests fetch nothing: blobs in two colours, one for each name."""

from functools import cache

import torch
from nag_pag_flux.lab.toy import emoji
from torch.nn import functional

SIDE = 96


@cache
def stand_ins():
    """As emoji.drawings: (CONCEPTS, VENDORS, 4, SIDE, SIDE) bytes. A vendor draws a concept a little otherwise."""
    generator = torch.Generator().manual_seed(5)
    concepts, vendors = len(emoji.CONCEPTS), len(emoji.VENDORS)

    def fields(*size):
        return torch.randn(*size, generator=generator)

    knots = fields(concepts, 1, 5, 6, 6) + 0.6 * fields(concepts, vendors, 5, 6, 6)
    smooth = functional.interpolate(knots.flatten(0, 1), (SIDE, SIDE), mode="bicubic")
    axis = torch.linspace(-1, 1, SIDE)
    round_ = 0.9 - torch.hypot(axis[:, None], axis[None]) + 0.15 * smooth[:, 4]
    alpha = (12 * round_).sigmoid()
    colors = torch.cat(((1.5 * smooth[:, :3]).sigmoid(), alpha[:, None]), 1)
    return (colors * 255).round().byte().unflatten(0, (concepts, vendors))

"""Does the model find the prompt again in what it drew? What guidance is worth, by no judge but the model itself.

A sample is noised again, and the plain model denoises it with its own prompt and with the empty one. By how much worse
the empty prompt fits says how much of the prompt the model sees in the picture: the pointwise mutual information of a
picture and its prompt at one noise level (Kong et al., arXiv 2310.07972, section 2; Wang et al., arXiv 2405.20759,
section 3), here as a share of the loss with the own prompt, so that pictures which are easier to denoise gain nothing
by that alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from ..measure import Measured


class Losses(NamedTuple):
    """The plain model's mean squared error on each picture, (pictures,): with its own prompt and with the empty one."""

    own: Tensor
    empty: Tensor


def loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """The mean squared error of each picture's prediction, (…, pictures, channels, height, width) → (…, pictures)."""
    return (predicted - truth).flatten(-3).double().square().mean(-1)


def recovered(losses: Losses) -> float:
    """By how much worse the empty prompt fits, as a share of the loss with the own prompt; 0: no prompt is seen."""
    return float(losses.empty.sum() / losses.own.sum()) - 1


def change(guided: Losses, plain: Losses) -> Measured:
    """The change of `recovered` by guidance, of the same prompts and noise in the same order.

    Above zero: the model finds the prompts again more surely than in what it draws by itself. The error is that of
    paired pictures, by the delta method; nan where there is but one.
    """
    pulls = _pulls(guided) - _pulls(plain)
    error = float(pulls.std()) / math.sqrt(len(pulls)) if len(pulls) > 1 else math.nan
    return Measured(recovered(guided) - recovered(plain), error)


def _pulls(losses: Losses) -> Tensor:
    """What each picture does to the ratio of the sums, to first order."""
    own, empty = losses.own.double(), losses.empty.double()
    return (empty - own * (empty.sum() / own.sum())) / own.mean()

"""Images as they are; their channels side by side where these are no colors."""

import numpy as np
from torch import Tensor

from ancestral.media.pixels import Pixels
from ancestral.spec import Spec


def tiles(spec: Spec, x: Tensor, extremes: tuple[float, float]) -> Pixels:
    """Images ``(N, C, H, W)`` as ``(N, H, W)`` or, of three channels, ``(N, H, W, 3)``.

    Real numbers are dark to light from the one extreme to the other.
    """
    values = x.detach().cpu().double()
    if spec.levels is None:
        low, high = extremes
        scaled = (values.nan_to_num(low, high, low) - low) * (255.0 / ((high - low) or 1.0))
    else:
        scaled = values * (255.0 / (spec.levels - 1))
    pixels = scaled.round().clamp(0, 255).numpy().astype(np.uint8)
    if pixels.shape[1] == 3:
        return pixels.transpose(0, 2, 3, 1)
    beside = np.pad(pixels, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)
    return np.concatenate(list(beside.transpose(1, 0, 2, 3)), axis=-1)[..., :-1]

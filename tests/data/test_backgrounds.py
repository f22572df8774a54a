from dataclasses import replace

import numpy as np
import torch

from mcss.data.backgrounds import BackgroundCrops, halvings
from mcss.data.capture import Capture
from mcss.images import decode_jpeg


def test_halvings_that_no_crop_needs_take_no_memory_and_the_crops_stay_the_same(scenic_capture: Capture) -> None:
    instants = scenic_capture.instants()
    crops = BackgroundCrops.read(scenic_capture, instants, 16, "a test")
    (levels,) = crops.scenes
    assert [level.shape[:2] for level in levels[:3]] == [(512, 512), (256, 256), (128, 128)]
    assert [max(level.strides) for level in levels[:2]] == [0, 0], "boxes of about 200 pixels, and 32 to cut"
    assert max(levels[-1].strides) > 0
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (512, 512, 3), np.uint8)
    whole = halvings(scene)
    kept = tuple(np.broadcast_to(np.uint8(0), image.shape) if not max(level.strides) else image
                 for image, level in zip(whole, levels, strict=True))  # fmt: skip
    chosen = np.arange(8), np.arange(8) % 4
    one, other = (replace(crops, scenes=(scenes,)).take(*chosen) for scenes in (whole, kept))
    assert torch.equal(one, other)
    assert decode_jpeg(scenic_capture.backgrounds["", "1"]).shape == (512, 512, 3)

"""BlazePose's own landmarks as poses of our skeleton: a teacher that has seen real people."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcss.labelling.joints import joints_of_landmarks
from mcss.models.backbones import build_backbone
from mcss.models.blazepose import load_landmark_heads
from mcss.skeletons import canonical_pose


class LandmarkTeacher(nn.Module):
    """BlazePose with its own landmark heads, unchanged, for networks with the same first stages."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone("blazepose", "mediapipe", batchnorm_affine=True)
        self.heads = load_landmark_heads()

    def poses(self, images: Float[Tensor, "batch _ _ _"], first: int = 0) -> Float[Tensor, "batch 17 3"]:
        """Return canonical poses in mm of images, or of what stage `first` of the backbone takes.

        They are upright as far as the camera is: BlazePose's axes are those of the image.
        """
        right, down, away = self.heads(self.backbone(images, first)).world.double().cpu().unbind(dim=-1)
        joints = joints_of_landmarks(torch.stack([right, away, -down], dim=-1).numpy())
        return canonical_pose(torch.from_numpy(joints).float()).to(images.device)

"""BlazePose's own landmarks as poses of our skeleton: a teacher that has seen real people."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcss.models.backbones import build_backbone
from mcss.models.blazepose import load_landmark_heads
from mcss.skeletons import JOINTS, canonical_pose

_SAME = {
    "LShoulder": 11,
    "RShoulder": 12,
    "LElbow": 13,
    "RElbow": 14,
    "LWrist": 15,
    "RWrist": 16,
    "LHip": 23,
    "RHip": 24,
    "LKnee": 25,
    "RKnee": 26,
    "LFoot": 27,
    "RFoot": 28,
}
_NOSE, _EARS = 0, (7, 8)


def joints_of_landmarks(landmarks: Float[Tensor, "*batch 33 3"]) -> Float[Tensor, "*batch 17 3"]:
    """Return our 17 joints from BlazePose's 33 landmarks, which lack the spine: root-relative, along the same axes.

    The hip is midway between the hips, the thorax between the shoulders, and the spine between hip and thorax. The
    neck, which is at the chin in our skeleton, is between thorax and face, nearer to the face; the head is above the
    ears.
    """
    joints = landmarks.new_zeros(*landmarks.shape[:-2], len(JOINTS), 3)
    for name, index in _SAME.items():
        joints[..., JOINTS.index(name), :] = landmarks[..., index, :]
    hip, thorax = landmarks[..., 23:25, :].mean(dim=-2), landmarks[..., 11:13, :].mean(dim=-2)
    ears = landmarks[..., _EARS, :].mean(dim=-2)
    neck = thorax + 0.7 * (0.5 * (ears + landmarks[..., _NOSE, :]) - thorax)
    for name, place in (("Hip", hip), ("Spine", (hip + thorax) / 2), ("Thorax", thorax), ("Neck", neck)):
        joints[..., JOINTS.index(name), :] = place
    joints[..., JOINTS.index("Head"), :] = ears + 0.8 * (ears - neck)
    return joints - hip[..., None, :]


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
        right, down, away = self.heads(self.backbone(images, first)).world.unbind(dim=-1)
        return canonical_pose(joints_of_landmarks(torch.stack([right, away, -down], dim=-1)))

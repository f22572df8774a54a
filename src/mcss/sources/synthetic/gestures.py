"""Gestures: everyday motion without a recording, as smooth curves through key poses with limbs by inverse kinematics.

These procedural motions add what the recordings lack: telephoning, pointing, sitting down, reaching, stretching,
waiting. Their arms can also be combined with a recorded walk (`with_arms`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mcss.sources.synthetic.mocap import ELBOW_AXIS, HINGES, KNEE_AXIS, PARTS, Motion, blended

CHANNELS: dict[str, float] = {
    # Pelvis: height above the ankles and shift (to the left, to the back) in leg lengths; rotations in degrees.
    "height": 0.995, "shift_x": 0.0, "shift_y": 0.0, "tilt": 0.0, "turn": 0.0, "lean": 0.0,
    # Chest relative to the pelvis, head relative to the chest: forwards, twist to the left, sideways.
    "bend": 3.0, "twist": 0.0, "side": 0.0, "nod": 0.0, "look": 0.0, "cock": 0.0,
    # Ankles relative to the point below the hips at rest, in leg lengths (outwards, forwards, up); toes outwards.
    "l_foot_out": 0.02, "l_foot_front": 0.0, "l_foot_up": 0.0, "l_foot_turn": 8.0,
    "r_foot_out": 0.02, "r_foot_front": 0.0, "r_foot_up": 0.0, "r_foot_turn": 8.0,
    # Wrists relative to their shoulder along the chest's axes, in arm lengths (outwards, forwards, up); turn of the
    # elbow about the line from shoulder to wrist: at 0 it hangs, positive angles lift it outwards.
    "l_out": 0.18, "l_front": 0.15, "l_up": -0.94, "l_elbow": 15.0,
    "r_out": 0.18, "r_front": 0.15, "r_up": -0.94, "r_elbow": 15.0,
}  # fmt: skip
"""The channels that a key pose sets, with their values for standing at ease."""

_NAMES = tuple(CHANNELS)
_ARM = ("out", "front", "up", "elbow")


def arm(side: str, out: float, front: float, up: float, elbow: float = 15.0) -> dict[str, float]:
    """Return the channels of one arm ("l" or "r"): wrist in arm lengths from the shoulder, elbow's turn in degrees."""
    return dict(zip((f"{side}_{name}" for name in _ARM), (out, front, up, elbow), strict=True))


def arms(out: float, front: float, up: float, elbow: float = 15.0) -> dict[str, float]:
    """Return the channels of both arms, held alike."""
    return arm("l", out, front, up, elbow) | arm("r", out, front, up, elbow)


def feet(out: float, front: float = 0.0) -> dict[str, float]:
    """Return the channels of both feet: each foot `out` further out, the left foot `front` ahead of the right."""
    return {"l_foot_out": out, "r_foot_out": out, "l_foot_front": front / 2, "r_foot_front": -front / 2}


_CALL = arm("r", -0.24, 0.18, 0.38, -30.0)
_FOLDED = arm("l", -0.30, 0.44, -0.36, 35.0) | arm("r", -0.30, 0.36, -0.28, 35.0)
_HIPS = arms(0.22, 0.05, -0.68, 75.0)
_SQUAT = {"height": 0.48, "shift_y": 0.22, "tilt": 18.0, "bend": 22.0} | feet(0.12)
_SEAT = {"height": 0.52, "shift_y": 0.42, "tilt": 2.0, "bend": 8.0} | feet(0.05)
_KNEES = arms(0.02, 0.62, -0.48, 10.0)

GESTURES: dict[str, tuple[Mapping[str, float], ...]] = {
    "Phoning": (
        _CALL,
        _CALL | arm("l", 0.1, 0.45, -0.5) | {"look": 15.0, "cock": -8.0},
        _CALL | {"nod": 15.0, "shift_x": 0.05, "turn": 12.0},
        _CALL | arm("l", -0.16, 0.42, -0.40, 25.0) | {"twist": 12.0},
        _CALL | arm("l", 0.22, 0.05, -0.68, 75.0) | {"shift_x": -0.06, "look": -20.0},
        arm("r", 0.0, 0.5, -0.15, 20.0) | {"nod": 25.0},
        {},
    ),
    "Pointing": (
        arm("r", 0.15, 0.92, 0.05, 20.0) | {"look": -8.0},
        arm("r", 0.75, 0.55, 0.15, 20.0) | {"twist": -20.0, "look": -25.0},
        arm("r", 0.15, 0.72, 0.62, 20.0) | {"nod": -20.0, "bend": -4.0},
        arm("r", -0.35, 0.80, -0.1, 30.0) | {"twist": 25.0, "look": 20.0},
        arm("r", 0.35, 0.60, -0.6, 10.0) | {"nod": 25.0, "bend": 12.0},
        arms(0.35, 0.60, -0.35, 15.0) | {"shift_x": 0.05},
        arm("l", 0.6, 0.65, 0.05, 20.0) | {"twist": 20.0, "look": 20.0},
        arm("r", 0.35, 0.25, 0.55, 5.0),
        arm("r", 0.55, 0.15, 0.60, 5.0),
        {},
    ),
    "Sitting": (
        _SEAT | _KNEES,
        _SEAT | _KNEES | {"bend": 30.0, "nod": 10.0},
        _SEAT | arm("r", -0.08, 0.32, -0.1, 15.0) | arm("l", -0.15, 0.42, -0.45, 15.0) | {"bend": 22.0, "nod": 8.0},
        _SEAT | arms(0.3, 0.30, -0.5, 30.0) | {"twist": 25.0, "look": 20.0},
        _SEAT | {"l_foot_front": 0.35, "bend": -4.0} | arms(0.15, -0.15, -0.85, 20.0),
        _SQUAT | arms(0.0, 0.9, -0.1, 20.0),
        _SQUAT | arms(-0.05, 0.62, -0.3, 30.0),
        arms(0.02, 0.7, -0.45, 15.0) | {"height": 0.85, "shift_y": 0.12, "bend": 28.0, "tilt": 12.0},
        {},
    ),
    "Reaching": (
        arm("r", 0.15, 0.30, 0.90, 20.0) | {"nod": -25.0, "side": 8.0, "height": 1.0},
        arms(0.12, 0.35, 0.86, 20.0) | {"nod": -22.0, "height": 1.0},
        arms(0.0, 0.80, -0.25, 20.0) | {"bend": 12.0},
        arms(0.0, 0.70, -0.68, 15.0) | {"bend": 42.0, "tilt": 35.0, "height": 0.88, "shift_y": 0.12, "nod": -5.0},
        arms(0.0, 0.62, -0.72, 15.0) | {"bend": 45.0, "tilt": 20.0, "height": 0.58, "shift_y": 0.16} | feet(0.08, 0.3),
        arm("r", 0.1, 0.65, -0.70, 15.0) | {"bend": 48.0, "tilt": 28.0, "twist": 15.0, "height": 0.78, "shift_y": 0.1},
        arms(-0.02, 0.42, -0.30, 20.0),
        arm("r", 0.80, 0.40, 0.25, 25.0) | {"twist": -22.0, "side": -12.0, "look": -20.0},
        {},
    ),
    "Stretching": (
        arms(0.12, 0.05, 0.97, 20.0) | {"height": 1.0, "nod": -12.0},
        arms(0.97, 0.05, 0.05, 20.0) | feet(0.12),
        arm("l", 0.1, 0.1, 0.93, 25.0) | _HIPS | arm("l", -0.1, 0.1, 0.9, 35.0) | {"side": -28.0} | feet(0.12),
        arms(0.2, 0.75, -0.55, 15.0) | {"bend": 50.0, "tilt": 48.0, "height": 0.95, "shift_y": 0.15} | feet(0.1),
        _HIPS | {"twist": 38.0, "look": 20.0},
        arms(0.8, 0.1, 0.3, 30.0) | {"l_foot_up": 0.45, "l_foot_front": 0.12, "shift_x": -0.10, "l_foot_out": -0.03},
        arms(0.9, 0.15, 0.05, 25.0)
        | {"l_foot_up": 0.25, "l_foot_front": -0.42, "shift_x": -0.10, "tilt": 18.0, "bend": 12.0},
        {"height": 0.62, "l_foot_front": 0.5, "r_foot_front": -0.48, "bend": 4.0} | _HIPS,
        {"height": 0.70, "shift_x": 0.30, "l_foot_out": 0.42, "r_foot_out": 0.36, "bend": 18.0} | _KNEES,
        arms(0.05, 0.98, 0.02, 25.0),
    ),
    "Waiting": (
        _FOLDED,
        _FOLDED | {"shift_x": 0.07, "lean": 3.0, "look": 25.0},
        _HIPS,
        _HIPS | {"shift_x": -0.07, "twist": 12.0, "look": -25.0},
        arms(-0.20, -0.34, -0.66, 35.0) | {"bend": -3.0},
        arms(-0.24, 0.36, -0.68, 20.0),
        arm("l", -0.22, 0.40, -0.38, 25.0) | arm("r", -0.28, 0.38, 0.16, 5.0) | {"nod": 12.0},
        arm("l", 0.05, 0.45, -0.42, 10.0) | {"nod": 22.0},
        arm("r", -0.18, 0.12, 0.46, 50.0) | {"nod": 8.0},
        {},
    ),
}  # fmt: skip
"""Key poses of each action, made by hand, as departures from standing at ease. Performers go through them in an order,
at a pace and with deviations of their own. Only `Sitting` has a seat, which is not drawn."""

# Standard deviation of a performer's departures from a key pose, by the channel's name without the side.
_DEPARTURE = {"height": 0.02, "shift_x": 0.02, "shift_y": 0.02, "out": 0.06, "front": 0.06, "up": 0.06,
              "elbow": 14.0, "foot_out": 0.025, "foot_front": 0.04, "foot_up": 0.0, "foot_turn": 6.0,
              "tilt": 3.0, "turn": 5.0, "lean": 2.0, "bend": 5.0, "twist": 6.0, "side": 4.0,
              "nod": 7.0, "look": 10.0, "cock": 4.0}  # fmt: skip


@dataclass(frozen=True)
class Proportions:
    """Lengths of the limbs, which decide where hands and feet can reach.

    Attributes:
        thigh, shin: Lengths in leg lengths; together 1.
        hip: Distance from the centre of the pelvis to a hip, in leg lengths.
        upper_arm, forearm: Lengths in arm lengths, as the positions of the hands; together 1.
    """

    thigh: float = 0.5
    shin: float = 0.5
    hip: float = 0.13
    upper_arm: float = 0.52
    forearm: float = 0.48


def _departures() -> Float[np.ndarray, " channels"]:
    """Return the standard deviation of every channel's departures."""
    return np.array([_DEPARTURE[name[2:] if name[:2] in ("l_", "r_") else name] for name in _NAMES])


def key_curves(
    action: str,
    seconds: float,
    rate: float,
    rng: np.random.Generator,
    departure: float = 1.0,
    habit: Float[np.ndarray, " channels"] | None = None,
) -> Float[np.ndarray, "frames channels"]:
    """Return curves of all `CHANNELS` through the key poses of an action in random order.

    Args:
        action: One of `GESTURES`.
        seconds: Length of the curves.
        rate: Frames per second.
        rng: Draws order, pace and departures.
        departure: Scale of the departures from each key pose.
        habit: A performer's constant departure, in standard deviations of the departures.
    """
    frames = round(seconds * rate) + 1
    standing = np.array(list(CHANNELS.values()))
    spread = _departures()
    constant = spread * rng.normal(size=len(_NAMES)) * departure * 0.7
    constant = constant if habit is None else constant + spread * habit
    poses: list[np.ndarray] = []
    times = [0.0]
    order: list[int] = []
    while len(times) < 2 or times[-2] < seconds:
        if not order:
            order = list(rng.permutation(len(GESTURES[action])))
        pose = standing.copy()
        for name, value in GESTURES[action][order.pop()].items():
            pose[_NAMES.index(name)] = value
        poses.append(pose + constant + spread * rng.normal(size=len(_NAMES)) * departure)
        move = rng.uniform(0.7, 1.2)
        hold = rng.uniform(0.0, 0.7)
        times += [times[-1] + hold, times[-1] + hold + move]
    # Each pose is reached at one knot and left at the next; the last time is the arrival at a pose that is not drawn.
    knots = np.repeat(np.stack(poses), 2, axis=0)
    times.pop()
    time = np.arange(frames) / rate
    at = np.clip(np.searchsorted(times, time, side="right") - 1, 0, len(times) - 2)
    x = np.clip((time - np.array(times)[at]) / np.diff(times)[at], 0.0, 1.0)
    # Minimum jerk, which people's reaching movements follow (Flash and Hogan, J. Neurosci. 1985).
    x = x**3 * (10 - 15 * x + 6 * x * x)
    curves: Float[np.ndarray, "frames channels"] = knots[at] + x[:, None] * (knots[at + 1] - knots[at])
    return curves


def _reach(
    target: Float[np.ndarray, "frames 3"],
    pole: Float[np.ndarray, "frames 3"],
    upper: float,
    lower: float,
    axis: Float[np.ndarray, "3"],
    least: float = 0.05,
) -> tuple[Float[np.ndarray, "frames 4"], Float[np.ndarray, " frames"]]:
    """Return the rotation from hanging down and the flexion that bring the end of a two-bone limb to `target`.

    A target out of reach is approached in its direction. The elbow or knee points towards `pole`.
    """
    span = upper + lower
    distance = np.linalg.norm(target, axis=-1)
    along = target / (distance[:, None] + 1e-9)
    # A soft limit, so that a limb straightens smoothly.
    distance = np.where(
        distance > 0.95 * span, 0.95 * span + 0.049 * span * np.tanh((distance / span - 0.95) / 0.049), distance
    )
    distance = np.maximum(distance, abs(upper - lower) + least)
    pole = pole - (pole * along).sum(-1, keepdims=True) * along
    pole = pole / (np.linalg.norm(pole, axis=-1, keepdims=True) + 1e-9)
    cosine = (upper**2 + distance**2 - lower**2) / (2 * upper * distance)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))[:, None]
    bone = np.cos(angle) * along + np.sin(angle) * pole
    hinge = np.cross(pole, along)
    down = np.array([0.0, 0.0, -1.0])
    axes = np.stack([hinge, bone, np.cross(hinge, bone)], axis=-1)
    rest = np.stack([axis, down, np.cross(axis, down)], axis=-1)
    folded = (upper**2 + lower**2 - distance**2) / (2 * upper * lower)
    return Rotation.from_matrix(axes @ rest.T).as_quat(), np.pi - np.arccos(np.clip(folded, -1.0, 1.0))


def motion_of_curves(curves: Float[np.ndarray, "frames channels"], rate: float, sizes: Proportions) -> Motion:
    """Return the motion that curves of `CHANNELS` describe, on the spot, facing −Y."""
    c = dict(zip(_NAMES, curves.T, strict=True))
    zero = np.zeros(len(curves))
    pelvis = Rotation.from_euler("zxy", np.stack([c["turn"], c["tilt"], c["lean"]], -1), degrees=True)
    chest = Rotation.from_euler("zxy", np.stack([c["twist"], c["bend"], c["side"]], -1), degrees=True)
    head = Rotation.from_euler("zxy", np.stack([c["look"], c["nod"], c["cock"]], -1), degrees=True)
    parts = {"Pelvis": pelvis.as_quat(), "Chest": chest.as_quat(), "Head": head.as_quat()}
    path = np.stack([c["shift_x"], c["shift_y"], c["height"]], -1)
    flexions: dict[str, np.ndarray] = {}
    for side, sign in (("L", 1.0), ("R", -1.0)):
        s = side.lower()
        out, front = _beside_torso(c[f"{s}_out"], c[f"{s}_front"], c[f"{s}_up"])
        hand = np.stack([sign * out, -front, c[f"{s}_up"]], -1)
        parts[side + "Shoulder"], flexions[side + "Elbow"] = _reach(
            hand, _elbow_pole(hand, c[f"{s}_elbow"], sign), sizes.upper_arm, sizes.forearm, ELBOW_AXIS, least=0.25
        )
        foot_out = sign * (sizes.hip + c[f"{s}_foot_out"])
        ankle = np.stack([foot_out, -c[f"{s}_foot_front"], c[f"{s}_foot_up"]], -1)
        hip = path + pelvis.apply([sign * sizes.hip, 0.0, 0.0])
        toes = Rotation.from_euler("z", (sign * c[f"{s}_foot_turn"])[:, None], degrees=True)
        inward = pelvis.inv()
        thigh, bent = _reach(
            inward.apply(ankle - hip),
            inward.apply(toes.apply([0.0, -1.0, 0.0])),
            sizes.thigh,
            sizes.shin,
            KNEE_AXIS,
        )
        parts[side + "Hip"], flexions[side + "Knee"] = thigh, bent
        shin = pelvis * Rotation.from_quat(thigh) * Rotation.from_rotvec(bent[:, None] * KNEE_AXIS)
        # A lifted foot hangs from the shin, a standing foot lies flat.
        lifted = np.clip(c[f"{s}_foot_up"] / 0.15, 0.0, 1.0)
        relaxed = np.tile(Rotation.from_rotvec([0.3, 0.0, 0.0]).as_quat(), (len(zero), 1))
        parts[side + "Ankle"] = blended((shin.inv() * toes).as_quat(), relaxed, lifted)
    return Motion(
        rate=rate,
        pelvis=path,
        rotations=np.stack([parts[name] for name in PARTS], axis=1),
        flexions=np.stack([flexions[name] for name in HINGES], axis=1),
    )


def _elbow_pole(
    hand: Float[np.ndarray, "frames 3"], turn: Float[np.ndarray, " frames"], sign: float
) -> Float[np.ndarray, "frames 3"]:
    """Return the direction in which the elbow points: down and back if the hand is low, out and forward if it is high.

    Args:
        hand: Wrist relative to the shoulder.
        turn: Degrees about the line from shoulder to wrist; positive lifts the elbow outwards.
        sign: +1 for the left arm, −1 for the right.
    """
    along = hand / (np.linalg.norm(hand, axis=-1, keepdims=True) + 1e-9)
    high = np.clip((along[:, 2:] + 0.2) / 0.8, 0.0, 1.0)
    high = high * high * (3 - 2 * high)
    pole = (1 - high) * [0.35 * sign, 0.6, -0.75] + high * [0.75 * sign, -0.45, -0.3]
    pole -= (along * pole).sum(-1, keepdims=True) * along
    return Rotation.from_rotvec(along * np.radians(turn)[:, None] * sign).apply(pole)


_TORSO = (0.36, 0.30)
"""Half width and half depth, in arm lengths, of the torso, which wrists do not enter."""


def _beside_torso(
    out: Float[np.ndarray, " frames"], front: Float[np.ndarray, " frames"], up: Float[np.ndarray, " frames"]
) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
    """Move wrist positions (outwards, forwards) that lie inside the torso to its surface."""
    wide, deep = _TORSO
    x, y = (out + wide) / wide, front / deep
    radius = np.hypot(x, y)
    # Above the shoulders there is only the neck, so the limit fades out between −0.05 and 0.15 arm lengths.
    limit = np.clip((0.15 - up) / 0.2, 0.0, 1.0)
    scale = np.maximum(radius, limit) / np.maximum(radius, 1e-6)
    return x * scale * wide - wide, y * scale * deep


def with_arms(motion: Motion, gesture: Motion, share: float = 1.0) -> Motion:
    """Combine a recorded motion with the arms and head of a gesture; both must be equally long."""
    rotations = motion.rotations.copy()
    for name in ("LShoulder", "RShoulder", "Head"):
        k = PARTS.index(name)
        weight = np.full(len(motion), share)
        rotations[:, k] = blended(motion.rotations[:, k], gesture.rotations[:, k], weight)
    flexions = motion.flexions.copy()
    elbows = [HINGES.index("LElbow"), HINGES.index("RElbow")]
    flexions[:, elbows] += share * (gesture.flexions[:, elbows] - flexions[:, elbows])
    return replace(motion, rotations=rotations, flexions=flexions)

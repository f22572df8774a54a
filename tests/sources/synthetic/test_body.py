from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from mcss.skeletons import JOINTS
from mcss.sources.synthetic import body as bodies
from mcss.sources.synthetic.body import Body, Phenotype, template
from mcss.sources.synthetic.figure import Figure
from mcss.sources.synthetic.rendering import PosedBones, posed_vertices
from mcss.sources.synthetic.wardrobe import dress

pytestmark = pytest.mark.filterwarnings("default")  # Warp, which Anny loads, warns where there is no GPU


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.of_subject(0, seed=0)


@pytest.fixture(scope="module")
def figure(body: Body) -> Figure:
    return dress(body, 0, seed=0)


def random_orientations(frames: int, bones: int) -> np.ndarray:
    turns = Rotation.random(frames * bones, random_state=0).as_matrix()
    return turns.reshape(frames, bones, 3, 3)


def anny_posed(body: Body, orientations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and bone heads by Anny itself."""
    model = bodies._model()
    count = len(orientations)
    phenotype = {name: torch.full((count,), value) for name, value in asdict(body.phenotype).items()}
    with torch.no_grad():
        rest = model(phenotype_kwargs={name: value[:1] for name, value in phenotype.items()})["rest_bone_poses"][0]
        poses = torch.eye(4).repeat(*orientations.shape[:2], 1, 1)
        poses[..., :3, :3] = torch.tensor(orientations @ rest[:, :3, :3].numpy(), dtype=torch.float32)
        output = model(pose_parameters=poses, phenotype_kwargs=phenotype, pose_parameterization="world-orient")
    return output["vertices"].numpy(), output["bone_poses"][:, :, :3, 3].numpy()


def test_posed_bones_and_skin_agree_with_anny(body: Body, figure: Figure) -> None:
    orientations = random_orientations(2, len(body.bone_names))
    vertices, heads = anny_posed(body, orientations)
    hips = [body.bone_names.index(name) for name in ("upperleg01.R", "upperleg01.L")]
    ours = body.bone_heads(orientations, heads[:, hips].mean(1).astype(np.float64))
    np.testing.assert_allclose(ours, heads, atol=2e-5)
    bones = PosedBones.of(body, orientations, ours)
    # The skin's vertices that the figure kept are found by their rest position.
    of_rest = {tuple(np.round(vertex, 6)): number for number, vertex in enumerate(body.vertices)}
    pairs = [(k, of_rest[key]) for k, v in enumerate(figure.rest) if (key := tuple(np.round(v, 6))) in of_rest]
    assert len(pairs) > 2000
    kept, original = np.array(pairs).T
    for frame in range(2):
        error = np.linalg.norm(posed_vertices(figure, bones, frame)[kept] - vertices[frame, original], axis=1)
        assert np.median(error) < 1e-4
        assert error.max() < 0.03  # weights below 1 % are left out


def test_joints_are_in_the_order_of_the_skeleton_and_in_millimetres(body: Body) -> None:
    still = np.tile(np.eye(3), (1, len(body.bone_names), 1, 1))
    heads = body.bone_heads(still, np.array([[0.0, 0.0, 0.9]]))
    pose = dict(zip(JOINTS, body.pose_joints(still, heads)[0], strict=True))
    np.testing.assert_allclose(pose["Hip"], (pose["RHip"] + pose["LHip"]) / 2)
    np.testing.assert_allclose(pose["Hip"], [0, 0, 900], atol=1e-6)
    for side, sign in (("L", 1), ("R", -1)):  # +X is the person's left
        for joint in ("Hip", "Knee", "Foot", "Shoulder", "Elbow", "Wrist"):
            assert pose[side + joint][0] * sign > 50
    heights = [pose[name][2] for name in ("LFoot", "LKnee", "Hip", "Spine", "Thorax", "Neck", "Head")]
    assert (np.diff(heights) > 20).all()
    assert 1400 < pose["Head"][2] < 2000


def test_people_of_a_capture_differ_and_do_not_depend_on_how_many_there_are() -> None:
    people = [Phenotype.of_subject(subject, seed=0) for subject in range(8)]
    assert people[3] == Phenotype.of_subject(3, seed=0)
    assert people != [Phenotype.of_subject(subject, seed=1) for subject in range(8)]
    shapes = np.array([list(asdict(person).values()) for person in people])
    apart = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1) + np.eye(8)
    assert apart.min() > 0.15
    assert {person.gender > 0.5 for person in people} == {True, False}
    assert (shapes >= 0).all()
    assert (shapes <= 1).all()


def test_the_template_comes_with_parents_before_children_and_weights_of_one() -> None:
    shared = template()
    assert all(parent < bone for bone, parent in enumerate(shared.bone_parents))
    np.testing.assert_allclose(shared.weights.sum(1), 1, atol=1e-5)


def test_a_figure_leaves_out_what_cloth_hides(figure: Figure) -> None:
    everything = sum(len(shared.vertices) for shared in template().surfaces.values())
    assert len(figure.triangles) < 0.7 * everything
    assert figure.triangles.max() == len(figure.rest) - 1
    np.testing.assert_allclose(np.add.reduceat(figure.weights, figure.starts[:-1]), 1, atol=1e-5)

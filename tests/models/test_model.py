import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from filming import Room, write_video
from PIL import Image

import mcss
from captures_for_tests import photo
from mcss.data.capture import Capture
from mcss.errors import CheckpointError, ImageError
from mcss.images import as_rgb, read_image
from mcss.methods.method import Method
from mcss.methods.recipe import RecipeName
from mcss.methods.registry import load_estimator
from mcss.models import model as models
from mcss.models.model_file import read_model, save_model
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.models.prediction import NetworkPredictor
from mcss.training.settings import TrainSettings, recipe
from runs_for_tests import equipped_run, small_network

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return equipped_run(tmp_path_factory.mktemp("run"))


def test_images_of_a_capture_and_its_rows_give_the_same(tiny_capture: Capture, run: Path) -> None:
    rows = tiny_capture.instants("test").rows[:20].ravel()
    model = mcss.load(run)
    found = model.predict(tiny_capture.decode(rows, 32))
    expected = NetworkPredictor(model.network, tiny_capture)(rows)
    np.testing.assert_allclose(found.pose, expected.pose, atol=1e-2)
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-5)
    assert (found.pose.shape, found.embedding.shape, len(found)) == ((80, 17, 3), (80, 128), 80)
    assert (found.pose[:, 0] == 0).all()
    np.testing.assert_array_equal(model.embed(tiny_capture.decode(rows, 32)), found.embedding)


def test_files_and_arrays_one_and_several(run: Path, tmp_path: Path) -> None:
    model = mcss.load(run / "model.safetensors")
    image = photo()
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    once = model.predict(str(tmp_path / "a.png")).pose
    for same in (image, [image], image[None], [tmp_path / "a.png"]):
        np.testing.assert_array_equal(model.predict(same).pose, once)
    assert len(model.predict([])) == 0


def test_a_box_is_looked_at_with_the_margin_of_training_crops(run: Path) -> None:
    model = mcss.load(run)
    image = photo()
    found = model.predict(image, [(100, 120, 80, 200)])
    assert found.crop_boxes.tolist() == [[25, 105, 255, 335]]  # 1.15 × 200 around the centre (140, 220)
    np.testing.assert_array_equal(found.pose, model.predict(image[105:335, 25:255]).pose)
    joints = found.in_image()
    inside = model.predict(image[105:335, 25:255]).in_image()
    np.testing.assert_allclose(joints, inside + np.array([25, 105]), atol=1e-3)


def test_an_image_that_is_not_square_is_shown_whole(run: Path) -> None:
    model = mcss.load(run)
    wide = np.full((100, 300, 3), 70, np.uint8)
    square = np.full((300, 300, 3), 70, np.uint8)
    wide[20:80, 100:200] = 200
    square[120:180, 100:200] = 200
    np.testing.assert_allclose(model.predict(wide).pose, model.predict(square).pose, atol=1e-2)


def test_half_precision_is_read_as_single_and_predicts_nearly_the_same(run: Path, tmp_path: Path) -> None:
    whole = read_model(run)
    save_model(tmp_path / "half.safetensors", whole.network, {}, whole.parts, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (run / "model.safetensors").stat().st_size
    model = mcss.load(tmp_path / "half.safetensors")
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    image = photo()
    a, b = mcss.load(run).predict(image), model.predict(image)
    np.testing.assert_allclose(a.pose, b.pose, atol=2.0)
    assert a.error is not None
    assert b.error is not None
    np.testing.assert_allclose(a.error, b.error, rtol=0.02)
    assert load_estimator(tmp_path / "half.safetensors").config == whole.network.config


def test_models_without_heads_are_read_as_before_and_say_what_they_lack(tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", small_network(), {})
    found = mcss.load(tmp_path).predict(photo())
    assert (found.error, found.orientation, found.heading) == (None, None, None)
    with pytest.raises(CheckpointError, match=r"has no orientation head, .*; `mcss equip"):
        found.in_camera()


def test_parts_are_read_strictly(run: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(run / "model.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        header = file.metadata()
    path = tmp_path / "other.safetensors"
    save_file({k: v for k, v in tensors.items() if k != "placement.layers.2.weight"}, path, header)
    with pytest.raises(CheckpointError, match=r"layers\.2\.weight missing"):
        mcss.load(path)
    save_file({k: v for k, v in tensors.items() if k != "reference.weights"}, path, header)
    with pytest.raises(CheckpointError, match="uncertainty head is incomplete"):
        mcss.load(path)
    save_file(tensors, path, {k: v for k, v in header.items() if k != "reference"})
    with pytest.raises(CheckpointError, match=r"reference\.embedding unknown"):
        mcss.load(path)
    save_file(tensors, path, {**header, "placement": '{"stages": 4, "hidden": 8, "wings": 2}'})
    with pytest.raises(CheckpointError, match=r"unknown network settings wings; .* of a newer mcss"):
        mcss.load(path)


def test_without_shipped_weights_the_message_says_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "SHIPPED", tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"comes without weights .* `mcss train mcss .* --run RUN, or mcss.load"):
        mcss.load()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mcss.nothing  # noqa: B018


def test_networks_that_predict_in_camera_space_are_refused(tmp_path: Path) -> None:
    network = PoseNetwork(NetworkConfig(image_size=32, dim=4), "random", "camera")
    save_model(tmp_path / "model.safetensors", network, {})
    with pytest.raises(CheckpointError, match="predicts in camera space; expected one of `mcss train mcss`"):
        mcss.load(tmp_path)


def test_grey_deep_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(0, 240, 2, np.uint8).reshape(10, 12)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    rgba[:5, :, 3] = 0
    Image.fromarray(rgba, "RGBA").save(tmp_path / "clear.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    for name in ("grey", "deep", "palette"):
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), np.dstack([grey] * 3))
    clear = read_image(tmp_path / "clear.png")
    assert (clear[:5] == 128).all()
    np.testing.assert_array_equal(clear[5:], np.dstack([grey] * 3)[5:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_rotation_mark_is_applied(orientation: int, tmp_path: Path) -> None:
    from PIL import ImageOps

    image = Image.fromarray(photo(40, 30))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "turned.jpg")))
    np.testing.assert_allclose(read_image(tmp_path / "turned.jpg"), expected, atol=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"no image at all", "not a readable image"),
        (b"\xff\xd8\xff\xe0" + os.urandom(100), "not a readable image"),
        (b"\0\0\0\x20ftypisom" + bytes(99), "this is a video, and an image is expected; `mcss predict VIDEO`"),
        (b"\x1aE\xdf\xa3" + bytes(99), "this is a video"),
        (b"RIFF\0\0\0\0AVI " + bytes(99), "this is a video"),
        (b"\0\0\0\x20ftypheic" + bytes(99), "an image in HEIC or AVIF, which cannot be read; save it as JPEG"),
    ],
)
def test_files_that_are_not_images(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "x.jpg")


def test_images_of_12_and_of_16_bits_are_as_bright_as_those_of_8() -> None:
    grey = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    assert (as_rgb(grey.astype(np.uint16) << 4)[..., 0] == grey).all()
    assert (as_rgb(grey.astype(np.uint16) << 8)[..., 0] == grey).all()


def test_arrays_and_boxes_that_are_invalid(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read \(No such file"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match="got an array of float64; multiply floats"):
        as_rgb(np.zeros((4, 4, 3)))
    with pytest.raises(ImageError, match=r"image 1: .* got shape \(4, 4, 2\)"):
        mcss.load(run).predict([photo(), np.zeros((4, 4, 2), np.uint8)])
    with pytest.raises(ImageError, match="expected one for each of 1 images, got 2"):
        mcss.load(run).predict(photo(), [(0, 0, 5, 5)] * 2)
    for box in ((900, 0, 5, 5), (0, 0, 0, 5), (0, 0, 1e9, 5), (0, 0, float("nan"), 5), (0, 0, float("inf"), 5)):
        with pytest.raises(ImageError, match=r"box 0: expected a box .* in the image of 300×400 pixels, got"):
            mcss.load(run).predict(photo(), [box])


def test_the_card_says_how_the_shipped_weights_do_on_real_footage() -> None:
    said = models.on_real_footage()
    figures = r"\d+ mm from one view and \d+ mm from four views fused .* a pose that ignores the image: \d+\)"
    assert re.search(figures, said)


def test_the_examples_of_the_docs_run(
    run: Path, tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the examples in order, with a small training, and compare shapes with their comments."""

    def small(name: RecipeName, method: type[Method], capture: str) -> TrainSettings:
        settings = recipe(name, method, capture)
        network = replace(settings.network, image_size=32)
        own = replace(settings.method, instants=4, min_gap=0.2)
        return replace(settings, method=own, network=network, weights="random", variants=1, validation_instants=4)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mcss.training.settings.recipe", small)
    monkeypatch.setattr(models, "SHIPPED", run / "model.safetensors")
    write_video(Path("walk.mp4"), Room(width=160, height=120, count=30).images(), codec="h264")
    for name, size in (("photo.jpg", (400, 300)), ("another.png", (300, 500)), ("street.jpg", (600, 800))):
        cv2.imwrite(name, photo(*size))
    Path("runs").mkdir()
    Path("runs/mcss").symlink_to(run)
    Path("captures").mkdir()
    Path("captures/synthetic").symlink_to(tiny_capture.uri)
    names: dict[str, object] = {}
    checked = 0
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL):
        exec(block.replace("steps=500", "steps=2"), names)
        for expression, shape in re.findall(r"^(prediction[.\w()]+) +# (\([\d, ]+\))", block, re.MULTILINE):
            assert eval(expression, names).shape == eval(shape), expression
            checked += 1
    assert checked >= 7
    assert sorted(path.name for path in Path("poses").iterdir()) == ["walk.bvh", "walk.json", "walk_angles.csv"]
    assert (tmp_path / "runs" / "tenth" / "model.safetensors").exists()

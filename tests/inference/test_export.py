"""Export for both runtimes, loading of the files by those runtimes alone, and everything that is refused."""

import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.loading.augmentation import normalise
from mcss.data.schema import Selector
from mcss.errors import ExportError
from mcss.evaluation.predictions import least_seen_split, target_poses
from mcss.inference.export.export import ExportSettings, Parity, export_run, generated_images
from mcss.inference.export.runtimes import ExportedModel, ExportedPredictor, openvino_runtime
from mcss.methods.rhodin_eccv18 import NovelViewNetwork, SynthesisConfig
from mcss.models.model import load
from mcss.models.model_file import save_model
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.skeletons import JOINTS

SIZE = 64
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def run(tiny_capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small ResNet whose poses are as large as people."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PoseNetwork(NetworkConfig(backbone="resnet18", image_size=SIZE, dim=16, embedding_norm=True))
    network.set_pose_statistics(target_poses(tiny_capture.instants("train")))
    network.train()
    with torch.no_grad():  # gives the running statistics of images
        for _ in range(20):
            network(normalise(torch.from_numpy(generated_images(16, SIZE)).permute(0, 3, 1, 2)))
    folder = tmp_path_factory.mktemp("run")
    config = {"capture_fingerprint": tiny_capture.fingerprint}
    save_model(folder / "model.safetensors", network.eval(), {"config": json.dumps(config)})
    return folder


def test_a_file_is_checked_on_the_split_that_training_saw_least_of(tiny_capture: Capture) -> None:
    assert least_seen_split(tiny_capture) == "validation"
    capture = Capture.open(tiny_capture.uri)
    nobody = {"train": (Selector(),), "test": (Selector(subjects=("S9",)),), "validation": ()}
    capture.info = replace(capture.info, splits=nobody)
    assert least_seen_split(capture) == "train"
    capture.info = replace(capture.info, splits={"train": (Selector(),), "test": (Selector(subjects=("S3",)),)})
    assert least_seen_split(capture) == "test"


@pytest.fixture(scope="module")
def onnx_file(run: Path, tiny_capture: Capture) -> Path:
    out = run / "exported" / "model.onnx"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main(["export", str(run), "--format", "onnx", "-o", str(out), "--capture", tiny_capture.uri,
              "--json", str(out.with_suffix(".json"))])  # fmt: skip
    out.with_suffix(".txt").write_text(said.getvalue())
    return out


def reference(run: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute pose and embedding with the network itself, with a normalisation that shares no code with the graph."""
    from mcss.models.model_file import load_model

    network = load_model(run)
    with torch.no_grad():
        output = network(normalise(torch.from_numpy(images).permute(0, 3, 1, 2)))
        return network.denormalised(output.coordinates).numpy(), output.embedding.numpy()


def test_plain_onnx_runtime_computes_what_the_network_does_for_any_number_of_images(run: Path, onnx_file: Path) -> None:
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type) for i in session.get_inputs()] == [("image", "tensor(uint8)")]
    assert [o.name for o in session.get_outputs()] == ["pose", "embedding"]
    for count in (1, 5):
        images = generated_images(count, SIZE)
        pose, embedding = session.run(["pose", "embedding"], {"image": images})
        expected = reference(run, images)
        np.testing.assert_allclose(pose, expected[0], atol=0.05)
        np.testing.assert_allclose(embedding, expected[1], atol=1e-4)
        assert np.abs(pose).max() > 100, "millimetres"


def test_the_file_says_what_it_is(run: Path, onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model)
    facts = json.loads({entry.key: entry.value for entry in model.metadata_props}["mcss"])
    assert tuple(facts["joints"]) == JOINTS
    assert (facts["unit"], facts["frame"], facts["image_size"], facts["precision"]) == (
        "mm",
        "canonical",
        64,
        "float32",
    )
    assert facts["digest"] == hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    assert facts["licence"] == "trained on images under CC0-1.0"


@pytest.mark.slow
def test_the_shipped_weights_are_exported_by_name(tmp_path: Path) -> None:
    main(["export", "shipped", "--format", "onnx", "-o", str(tmp_path / "model.onnx")])
    images = generated_images(2, load("shipped").image_size)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    expected = load("shipped").predict(images)
    np.testing.assert_allclose(session.run(["pose"], {"image": images})[0], expected.pose, atol=0.5)


def test_the_command_prints_and_writes_how_it_was_checked(onnx_file: Path) -> None:
    said = " ".join(onnx_file.with_suffix(".txt").read_text().split())
    assert "64 images, split validation" in said
    assert "N-MPJPE, exported" in said
    parity = json.loads(onnx_file.with_suffix(".json").read_text())["parity"]
    assert 0 < parity["pose_difference"] < 0.1
    assert parity["n_mpjpe_exported"] == pytest.approx(parity["n_mpjpe_original"], abs=0.01)


def test_an_exported_file_is_a_predictor(run: Path, onnx_file: Path, tiny_capture: Capture) -> None:
    rows = tiny_capture.instants("test").rows[0]
    found = ExportedPredictor(ExportedModel.open(onnx_file), tiny_capture)(rows)
    assert found.pose is not None
    np.testing.assert_allclose(found.pose, reference(run, tiny_capture.decode(rows))[0], atol=0.05)


def test_the_example_of_the_documentation_runs(
    onnx_file: Path, tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    example = re.search(r"```python\n(.*?)```", (DOCS / "export.md").read_text(), re.DOTALL)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(onnx_file.read_bytes())
    Path("person.jpg").write_bytes(tiny_capture.images(np.array([0]))[0])
    exec(example[1], {})  # the documentation of this project
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 17
    assert lines[0].split() == ["Hip", "0", "0", "0", "mm"]


@pytest.mark.slow
def test_plain_openvino_computes_what_the_network_does_with_channels_first(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.xml"
    result = export_run(run, "openvino", out, ExportSettings(layout="nchw", licence="ours"))
    assert result.parity.source == "generated images"
    compiled = openvino_runtime().Core().compile_model(str(out), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 3):
        images = generated_images(count, SIZE)
        found = compiled({"image": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})
        np.testing.assert_allclose(found["pose"], reference(run, images)[0], atol=0.05)
    facts = ExportedModel.open(out).facts
    assert (facts.layout, facts.licence) == ("nchw", "ours")


@pytest.mark.slow
@pytest.mark.parametrize(("format", "name"), [("onnx", "model.onnx"), ("openvino", "model.xml")])
def test_eight_bits_are_calibrated_measured_and_smaller(
    run: Path, tiny_capture: Capture, tmp_path: Path, format: str, name: str, onnx_file: Path
) -> None:
    main(["export", str(run), "--format", format, "--int8", "-o", str(tmp_path / name), "--capture", tiny_capture.uri,
          "--max-loss", "5", "--calibration-images", "40", "--json", str(tmp_path / "found.json")])  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["parity"]["n_mpjpe_exported"] != found["parity"]["n_mpjpe_original"]
    assert found["parity"]["loss_percent"] <= 5
    assert found["megabytes"] < 0.5 * onnx_file.stat().st_size / 1e6
    assert ExportedModel.open(tmp_path / name).facts.precision == "int8"


@pytest.mark.slow
def test_neither_openvino_nor_nncf_reports_its_import(tmp_path: Path) -> None:
    code = (
        "import os; from mcss.inference.export.runtimes import nncf_package, openvino_runtime; "
        "openvino_runtime(); nncf_package(); "
        "import openvino_telemetry; assert not openvino_telemetry.Telemetry().consent; print(os.environ.get('CI'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("None", 0), done.stderr
    assert not (tmp_path / "intel").exists()


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises((ValueError, ImportError)) as stopped:
        export_run(*args, **kwargs)  # type: ignore[arg-type]
    return str(stopped.value)


def test_a_run_that_is_not_finished_or_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").touch()
    assert "this run is not finished" in refusal(tmp_path, "onnx", tmp_path / "m.onnx")
    assert "no such file" in refusal(tmp_path / "nowhere", "onnx", tmp_path / "m.onnx")


def test_unknown_formats_and_wrong_endings_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "expected a file for openvino to end in .xml" in refusal(run, "openvino", tmp_path / "m.onnx")
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(run), "--format", "coreml", "-o", "m.mlmodel"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "onnx" in said
    assert "openvino" in said


def test_a_network_that_draws_is_refused(tmp_path: Path) -> None:
    network = NovelViewNetwork(NetworkConfig(image_size=64), SynthesisConfig())
    save_model(tmp_path / "model.safetensors", network, {})
    assert "NovelViewNetwork, which renders images" in refusal(tmp_path, "onnx", tmp_path / "m.onnx")


@pytest.mark.parametrize(("format", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("onnx", "onnx")])
def test_a_missing_package_is_named_with_its_extra(
    run: Path, tmp_path: Path, format: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    out = tmp_path / ("m.onnx" if format == "onnx" else "m.xml")
    assert f"pip install 'mcss[{format}]'" in refusal(run, format, out)
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_without_images_are_refused(run: Path, tmp_path: Path) -> None:
    assert "give --capture" in refusal(run, "onnx", tmp_path / "m.onnx", ExportSettings(int8=True))


@pytest.mark.parametrize(
    ("settings", "parity", "message"),
    [
        (ExportSettings(), Parity(9, "p", 0.6, 0.0, None, None), "a joint by 0.6 mm"),
        (ExportSettings(), Parity(9, "p", float("nan"), 0.0, None, None), "a joint by nan mm"),
        (ExportSettings(), Parity(9, "p", 0.0, 0.1, None, None), "the embedding by 0.1"),
        (ExportSettings(int8=True), Parity(9, "p", 20.0, 0.1, 100.0, 101.5), "N-MPJPE grows by 1.50 %"),
        (ExportSettings(int8=True), Parity(9, "p", 20.0, 0.1, None, None), "has no labels"),
    ],
)
def test_a_file_that_is_off_is_not_written(
    run: Path, tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_file: Path,
    settings: ExportSettings, parity: Parity, message: str,
) -> None:  # fmt: skip
    def make(*args: object) -> None:
        made = args[-2]
        assert isinstance(made, Path)
        made.write_bytes(onnx_file.read_bytes())

    monkeypatch.setattr("mcss.inference.export.export._make", make)
    monkeypatch.setattr("mcss.inference.export.export._parity", lambda *_: parity)
    out = tmp_path / "m.onnx"
    out.write_text("what was there before")
    text = refusal(run, "onnx", out, settings, tiny_capture)
    assert message in text
    assert out.read_text() == "what was there before"


def test_a_graph_that_computes_something_else_is_found_out(
    run: Path, tmp_path: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*args: object) -> None:
        model = onnx.load(onnx_file)
        for tensor in model.graph.initializer:  # the mean of the pixels, off by one grey level
            values = onnx.numpy_helper.to_array(tensor)
            if values.shape == (3, 1, 1) and values.max() > 100:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values + 1, tensor.name))
        onnx.save(model, args[-2])

    monkeypatch.setattr("mcss.inference.export.export._make", make)
    assert "the exported network differs from the original" in refusal(run, "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["a"], ["b"])],
            "g",
            [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1])],
            [onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(foreign, tmp_path / "foreign.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    (tmp_path / "broken.xml").write_text("no graph")
    for name, reason in (
        ("foreign.onnx", "no header of mcss"),
        ("broken.onnx", "not a file that `mcss export` wrote"),
        ("broken.xml", "not a file that `mcss export` wrote"),
        ("nowhere.onnx", "no such file"),
    ):
        with pytest.raises(ExportError, match=reason):
            ExportedModel.open(tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"instants": 0}, "instants: expected 1 or more"),
        ({"calibration_images": 0}, "calibration_images: expected 1 or more"),
        ({"float_layers": -1}, "float_layers: expected 0 or more"),
        ({"max_loss": float("nan")}, "max_loss: expected 0 percent or more"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExportSettings(**settings)  # type: ignore[arg-type]

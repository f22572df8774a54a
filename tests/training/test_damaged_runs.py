"""Run folders and model files that are damaged end in an error that names the file."""

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mcss.data.capture import Capture
from mcss.data.keypoints import COLUMNS, _table
from mcss.errors import CheckpointError, SourceError
from mcss.files import locked
from mcss.methods.mcss import MCSS
from mcss.models.model_file import MODEL, read_model, save_model, write_tensors
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.training import checkpoints
from mcss.training.config_file import read_config
from mcss.training.heads import chosen_labels
from mcss.training.metrics_log import RunLog, read_metrics
from mcss.training.runs import read_run_config, write_config
from mcss.training.settings import recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    network = PoseNetwork(NetworkConfig("resnet18", dim=8, image_size=32))
    path = tmp_path_factory.mktemp("model") / MODEL
    save_model(path, network, {"config": "{}"})
    return path.read_bytes()


def with_header(model: bytes, change: Callable[[dict[str, str]], None]) -> bytes:
    (size,) = struct.unpack("<Q", model[:8])
    header = json.loads(model[8 : 8 + size])
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + model[8 + size :]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("joints", "["),
        ("joints", "[" * 100_000),
        ("network", "null"),
        ("network", "[1]"),
        ("network", '{"dim": "x"}'),
        ("network", '{"dim": 1000000000000}'),
        ("network", '{"image_size": -1}'),
        ("architecture", "{]"),
        ("placement", '{"stages": 77}'),
    ],
)
def test_a_damaged_header_of_a_model_names_the_file(key: str, text: str, model: bytes, tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(with_header(model, lambda header: header.update({key: text})))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: "):
        read_model(tmp_path)


def test_a_damaged_model_file_names_the_file(model: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (size,) = struct.unpack("<Q", model[:8])
    for _ in range(40):
        at = int(rng.integers(8 + size))
        for damaged in (model[:at], model[:at] + rng.bytes(3) + model[at + 3 :]):
            (tmp_path / MODEL).write_bytes(damaged)
            try:
                read_model(tmp_path)
            except CheckpointError as error:
                named = str(error)
            else:
                named = MODEL  # a letter of a text that nothing depends on
            assert MODEL in named


def test_the_same_tensors_and_texts_give_the_same_bytes(tmp_path: Path) -> None:
    texts = {f"key {n}": "ä\\\n" * n for n in range(40)}
    tensors = {"b": torch.arange(6.0), "a": torch.zeros(2, 3)}
    for name in ("one", "two", "three"):
        write_tensors(tmp_path / name, tensors, dict(sorted(texts.items(), key=lambda item: hash((name, item)))))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()
    assert torch.equal(load_file(tmp_path / "one")["b"], tensors["b"])


def test_tensors_of_every_kind_are_read_by_safetensors_as_they_were_written(tmp_path: Path) -> None:
    numbers = torch.arange(24.0).reshape(4, 6) - 9.5
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    tensors = {str(kind): numbers.to(kind) for kind in (*kinds, torch.int8, torch.uint8, torch.bool)}
    tensors |= {"part": numbers[1:3], "turned": numbers.T, "one": torch.tensor(3), "none": torch.empty(0, 7)}
    write_tensors(tmp_path / "a", tensors, {"key": "ä\n"})
    read = load_file(tmp_path / "a")
    assert read.keys() == tensors.keys()
    assert all(read[name].dtype == tensors[name].dtype and torch.equal(read[name], tensors[name]) for name in tensors)
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert file.metadata() == {"key": "ä\n"}


def test_tensors_are_written_to_the_one_locked_file_that_a_kill_may_leave_and_the_next_write_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def while_writing(_: int) -> None:
        assert [path.name for path in tmp_path.iterdir()] == [".a.part"]
        with pytest.raises(BlockingIOError):
            locked(tmp_path / ".a.part")
        seen.append(True)

    seen: list[bool] = []
    monkeypatch.setattr("os.fsync", while_writing)
    before = os.umask(0o022)
    try:
        write_tensors(tmp_path / "a", {"x": torch.zeros(3)}, {})
    finally:
        os.umask(before)
    assert seen == [True]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_the_config_of_a_run_on_two_captures_is_read_back(tiny_capture: Capture, tmp_path: Path) -> None:
    settings = replace(recipe("fast", MCSS, tiny_capture.uri), beside=(tiny_capture.uri,))
    write_config(tmp_path, settings, tiny_capture)
    assert read_config(tmp_path / "config.json", recipe("fast", MCSS, "c")) == settings


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 100_000, b"[]", b"{}", b'{"digest": 1}', b"{"])
def test_a_damaged_config_of_a_run_names_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json: expected the settings of a run, got something"):
        read_run_config(tmp_path / "config.json")
    settings = recipe("fast", MCSS, "c")
    if content not in (b"{}", b'{"digest": 1}'):  # no settings
        with pytest.raises(ValueError, match=r"config\.json"):
            read_config(tmp_path / "config.json", settings)
        with pytest.raises(ValueError, match=r"config\.json|does not say whose labels"):
            chosen_labels(tmp_path, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "optimiser: 3"),
        ("a.yaml", "optimiser: [1, 2]"),
        ("a.yaml", "steps: 1" + "0" * 400 + ".5"),
        ("a.yaml", "metric_loss: {a: 1}"),
        ("a.yaml", "[" * 5000),
        ("a.toml", "a = " + "[" * 5000),
        ("a.json", '{"lr": 1' + "0" * 400 + "}"),
        ("a.json", '{"lr": 1' + "0" * 5000 + "}"),
    ],
)
def test_settings_of_a_wrong_kind_name_the_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read_config(tmp_path / name, recipe("fast", MCSS, "c"))


def test_aliases_in_yaml_are_not_written_out(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(12)]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, "steps: *a12"]))
    with pytest.raises(ValueError, match=r"a\.yaml: steps: expected a whole number") as error:
        read_config(tmp_path / "a.yaml", recipe("fast", MCSS, "c"))
    assert len(str(error.value)) < 1000


def test_a_damaged_line_of_the_log_is_named_and_half_a_last_line_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    for content in (
        b'{"step": 1}\n\xf8{}\n{"step": 3}\n',
        b'{"step": 1}\n[]\n',
        b'{"step": 1}\n' + b"[" * 100_000 + b"\n",
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl line 2: cannot be read .* remove this line"):
            read_metrics(path)


def test_a_resumed_log_does_not_continue_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    RunLog(path, 0, 0.0, True, lambda *_: None)
    assert path.read_bytes() == b'{"step": 1}\n'


def test_a_damaged_table_of_joints_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "points.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(SourceError, match=r"points: .*points\.parquet is not a table of joints"):
        _table(tmp_path / "points.parquet", COLUMNS, "points")


def test_a_run_is_resumed_on_as_many_devices_as_it_was_begun_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    monkeypatch.setattr(checkpoints, "_processes", lambda: 2)
    checkpoints.save_checkpoint(tmp_path / "c", 3, network, None, optimiser, "digest")
    assert checkpoints.load_checkpoint(tmp_path / "c", network, None, optimiser, "digest") == 3
    monkeypatch.setattr(checkpoints, "_processes", lambda: 1)
    with pytest.raises(CheckpointError, match=r"trained on 2 devices, and on 1 it would get other weights.*--devices"):
        checkpoints.load_checkpoint(tmp_path / "c", network, None, optimiser, "digest")

"""Names of trained models: a run folder, a model file, ``shipped``, or a model on the Hugging Face hub.

``hf:USER/NAME`` is a model repository on the hub as `mcss push` fills it, and ``hf:USER/NAME@REVISION`` one of its
branches, tags or commits. It is downloaded once, by the hub's own client into the hub's own cache, and with
``HF_HUB_OFFLINE=1`` it is only looked for there.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mcss.errors import CheckpointError
from mcss.files import write_text

SHIPPED = Path(__file__).with_name("mcss.safetensors")
"""The weights shipped with the package."""

SHIPPED_NAME = "shipped"
"""The name of the shipped weights, wherever a run can be named."""

HUB = "hf:"
"""What the name of a model on the hub begins with."""

PUSHED = ("model.safetensors", "config.json", "metrics.jsonl", "README.md")
"""The files of a model on the hub."""


def is_elsewhere(name: str) -> bool:
    """Whether the name of a run is no path: the shipped weights, or a model on the hub."""
    return name.startswith(HUB) or (name == SHIPPED_NAME and not Path(name).exists())


def located(run: str | Path) -> Path:
    """Return the run folder or model file of that name.

    Raises:
        CheckpointError: The name is one of the hub, and there is no such model, or it cannot be reached.
    """
    name = str(run)
    if name.startswith(HUB):
        return _downloaded(name)
    return SHIPPED if is_elsewhere(name) else Path(run)


def _downloaded(name: str) -> Path:
    """Return the folder of a model on the hub, which is downloaded unless it is there already."""
    hub = _client()
    repository, revision = _parsed(name)
    try:
        folder = hub.snapshot_download(repository, revision=revision, allow_patterns=list(PUSHED))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{name}: this model could not be downloaded from the Hugging Face hub ({reason}). Check the name and the "
            "connection; a private model needs `hf auth login` first."
        ) from error
    return Path(folder)


def _parsed(name: str) -> tuple[str, str | None]:
    """Split ``hf:USER/NAME@REVISION``, or ``USER/NAME``."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise CheckpointError(f"{name}: expected {HUB}USER/NAME or {HUB}USER/NAME@REVISION, such as {HUB}ann/studio.")
    return repository, revision or None


def _client() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError('models on the Hugging Face hub need the extra hub: pip install "mcss[hub]"') from error
    return huggingface_hub


@dataclass(frozen=True)
class PushSettings:
    """How a model is put on the hub."""

    private: bool = False
    """Let nobody else see the model; only for a model that is new on the hub."""
    message: str = "Upload a model trained with mcss"
    """Message of the commit on the hub."""
    licence: str = ""
    """Licence of the weights, as the hub names it, such as cc-by-4.0. Weights may inherit the conditions of the footage
    and labels they were trained on."""


def hub_folder(run: Path, folder: Path, name: str, settings: PushSettings | None = None) -> list[Path]:
    """Write the files that the hub gets for a run: model, settings, log, and a card.

    Args:
        run: A run folder or model file.
        folder: Folder for the files.
        name: ``USER/NAME``.
        settings: How the model is put on the hub.

    Raises:
        CheckpointError: There is no trained model, or the name is not one of a repository.
    """
    repository, _ = _parsed(name)
    model = run / "model.safetensors" if run.is_dir() else run
    if not model.is_file():
        raise CheckpointError(f"{run}: there is no trained model in it; finish `mcss train` first, then push it.")
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "model.safetensors"]
    shutil.copyfile(model, written[0])
    for extra in ("config.json", "metrics.jsonl"):
        if run.is_dir() and (run / extra).is_file():
            shutil.copyfile(run / extra, folder / extra)
            written.append(folder / extra)
    write_text(folder / "README.md", _card(run, repository, settings or PushSettings()))
    return [*written, folder / "README.md"]


def push(run: Path, name: str, folder: Path, settings: PushSettings) -> str:
    """Upload the files of `hub_folder` to the hub; return the address of the model.

    Raises:
        CheckpointError: The hub cannot be reached or refuses.
    """
    hub = _client()
    repository, _ = _parsed(name)
    hub_folder(run, folder, name, settings)
    try:
        api = hub.HfApi()
        created = api.create_repo(repository, private=settings.private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=settings.message)
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{name}: the Hugging Face hub did not take this model ({reason}). Sign in with `hf auth login`, and check "
            "that you may write there."
        ) from error
    return str(created)


def _card(run: Path, repository: str, settings: PushSettings) -> str:
    """The card of a model: what it is, how to use it, what it was trained with, and what `mcss evaluate` measured."""
    licence = [f"license: {settings.licence}"] if settings.licence else []
    lines = ["---", "library_name: mcss", "tags:", "- 3d-human-pose", "- mcss", *licence, "---", "", f"# {repository}"]
    lines += ["", "A network for 3D human pose and search by pose, trained with mcss.", "", "```python", "import mcss"]
    lines += ["", f'model = mcss.load("{HUB}{repository}")', "```", ""]
    config = run / "config.json"
    if run.is_dir() and config.is_file():
        known = json.loads(config.read_text(encoding="utf-8"))
        method, labels = known.get("method_name", "?"), known.get("labels", "?")
        steps = known.get("optimiser", {}).get("steps", "?")
        lines += [f"Method `{method}`, labels `{labels}`, {steps} steps, seed {known.get('seed', '?')}.", ""]
    for report in sorted(run.glob("*/report.json")) if run.is_dir() else ():
        lines += _measured(report.parent.name, json.loads(report.read_text(encoding="utf-8")))
    return "\n".join(lines).rstrip() + "\n"


def _measured(split: str, report: dict[str, Any]) -> list[str]:
    """The figures of an evaluation, as lines of a card."""
    found = []
    for row in report["rows"]:
        for key, title in (("n_mpjpe", "N-MPJPE"), ("mpjpe", "MPJPE"), ("pa_mpjpe", "PA-MPJPE")):
            if row.get(key) is not None:
                found.append(f"- {title}: {row[key]:.1f} mm")
        same = (row.get("retrieval") or {}).get("same_instant")
        if same:
            share, chance = 100 * same["hit_at_1"], 100 * same["chance_at_1"]
            frames = same["tolerance"]
            moment = f"the same moment, within ±{frames} frames," if frames else "the exact instant"
            found.append(f"- {moment} is found first: {share:.1f} % (by chance {chance:.1f} %)")
    kind = "a synthetic capture" if report.get("synthetic") else "a capture"
    return [f"Measured on the split `{split}` of {kind}, by `mcss evaluate`:", "", *found, ""] if found else []

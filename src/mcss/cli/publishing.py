"""The verb that shares a model: push."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.terminal import JsonFile, RunPath, app, console, finish
from mcss.models.run_names import HUB, PushSettings, hub_folder
from mcss.models.run_names import push as push_run


@app.command
def push(
    run: Positional[RunPath],
    name: Positional[str],
    settings: OmitArgPrefixes[PushSettings] = PushSettings(),  # noqa: B008 (frozen)
    dry_run: Annotated[Path | None, arg(metavar="FOLDER")] = None,
    json: JsonFile = None,
) -> None:
    """Put a trained model on the Hugging Face hub, where others name it as hf:USER/NAME (needs the extra `hub`).

    The model, its settings, its log and a card with the figures of `mcss evaluate` are uploaded; images are not.

    Args:
        run: Run folder of `mcss train`, or a model file.
        name: USER/NAME on the hub.
        settings: How the model is put on the hub.
        dry_run: Write the files to this folder, and upload nothing.
        json: Also write the address to this file.
    """
    name = name.removeprefix(HUB)
    if dry_run is not None:
        written = hub_folder(run, dry_run, name, settings)
        console.print(
            f"Dry run, nothing was uploaded. These files would go to {name}: {', '.join(map(str, written))}",
            soft_wrap=True,
        )
        finish({"name": name, "files": [str(path) for path in written]}, json)
        return
    with TemporaryDirectory() as folder:
        address = push_run(run, name, Path(folder), settings)
    console.print(f"Uploaded to {escape(address)}. Use it as [bold]{HUB}{escape(name)}[/].", soft_wrap=True)
    finish({"name": name, "address": address}, json)

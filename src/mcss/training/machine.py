"""Where a training run computes: devices, machines and memory, all of which are left to Lightning Fabric."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from lightning_fabric.plugins.environments.lightning import LightningEnvironment


@dataclass(frozen=True)
class Machine:
    """Where to compute, in Lightning Fabric's terms."""

    accelerator: str = "auto"
    """cpu, cuda, mps or auto."""
    devices: int = 1
    """Devices to use on each machine."""
    nodes: int = 1
    """Machines to use."""
    memory_gb: float | None = None
    """Memory (10⁹ bytes) for decoded images, by default half of what is free. If the images of a run need more, every
    step decodes its own; the result is the same."""
    compile: bool = False
    """Compile the network with torch.compile: the first steps take minutes, the later ones less time on many GPUs. Its
    sums are rounded differently, so resume with it as well."""
    logger: Literal["none", "tensorboard"] = "none"
    """Where the figures in metrics.jsonl also go: tensorboard writes event files to the run folder, which `tensorboard
    --logdir RUN` shows (needs the extra `tensorboard`)."""

    def fabric(self, precision: str, out: Path) -> Fabric:
        """Return a Fabric for these devices, which logs to the run folder `out`.

        Raises:
            ValueError: This machine does not have them.
            ImportError: The package of the logger is not installed.
        """
        several = self.devices * self.nodes > 1
        try:
            return Fabric(
                accelerator=self.accelerator,
                devices=self.devices,
                num_nodes=self.nodes,
                # Without labels the pose head has no gradient.
                strategy="ddp_find_unused_parameters_true" if several else "auto",
                precision=precision,  # type: ignore[arg-type]
                # One device trains alone, even where a job scheduler has started others beside it.
                plugins=[] if several else [LightningEnvironment()],
                loggers=self._loggers(out),
            )
        except RuntimeError as error:
            raise ValueError(
                f"accelerator: this machine does not have {self.devices} × {self.accelerator}; "
                "choose another one with --accelerator, or leave it out"
            ) from error

    def _loggers(self, out: Path) -> list[Logger]:
        if self.logger == "none":
            return []
        try:
            return [TensorBoardLogger(out, name="", version="")]
        except ImportError as error:
            extra = 'the extra tensorboard: pip install "mcss[tensorboard]"'
            raise ImportError(f"--logger tensorboard needs {extra}") from error

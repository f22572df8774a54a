"""Options of verbs whose work several processes or machines share."""

from dataclasses import dataclass
from typing import Literal

from mcss.workers import Ray, Workers


@dataclass(frozen=True)
class WorkerOptions:
    """Which processes do the work: some of this machine, or those of a Ray cluster."""

    processes: int | None = None
    """Number of processes, by default one per processor."""
    engine: Literal["processes", "ray"] = "processes"
    """Use processes of this machine, or the machines of a Ray cluster (needs the extra `ray`)."""
    ray_address: str = "auto"
    """Address of the head of the Ray cluster, HOST:PORT; auto is the cluster that this machine belongs to."""

    @property
    def chosen(self) -> Workers:
        """The workers as the library takes them."""
        return Ray(self.ray_address, self.processes) if self.engine == "ray" else self.processes


@dataclass(frozen=True)
class PredictionWorkers(WorkerOptions):
    """Which processes predict: this one, some of this machine, or those of a Ray cluster."""

    processes: int | None = None
    """Number of processes that predict; by default this one alone, with a thread for every processor. On a cluster, by
    default one for every processor of it."""

    @property
    def chosen(self) -> Workers:
        """The workers as the library takes them."""
        return 1 if self.engine == "processes" and self.processes is None else super().chosen

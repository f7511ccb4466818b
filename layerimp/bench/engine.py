"""Where the cells of a grid are computed: in this process, in worker processes, or on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from layerimp.bench.executors.base import Executor
from layerimp.bench.executors.in_process import InProcess
from layerimp.bench.executors.processes import Processes, devices
from layerimp.errors import OptionError, unknown_name
from layerimp.models.devices import device_named

if TYPE_CHECKING:
    import torch

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)


@dataclass(frozen=True)
class Engine:
    """Where the cells of a grid are computed.

    Attributes:
        name: `local`, or `ray` for a cluster.
        address: The address of the Ray cluster; None for the one in the environment, or else one on this machine.
        workers: The number of worker processes; 0 to compute in this process; None for one for each device, or as many
            as a cluster has room for.
        device: The device of the workers' models; None for all GPUs, else the CPU. A cluster assigns devices itself.
    """

    name: str = LOCAL
    address: str | None = None
    workers: int | None = None
    device: str | None = None

    def check(self) -> None:
        """Refuse a device that is not here, and options that contradict each other.

        Raises:
            InputError: there is no such engine or device, or one option excludes another.
        """
        device_named(self.device)
        if self.name not in ENGINES:
            raise unknown_name("engine", self.name, ENGINES)
        if self.name == RAY and self.device is not None:
            raise OptionError("--device is for the local engine; a Ray cluster gives out its GPUs and CPUs itself")
        if self.name == RAY and find_spec("ray") is None:
            raise OptionError("--engine ray needs Ray: pip install 'layerimp[ray]'")
        if self.name == RAY and self.workers == 0:
            raise OptionError("--workers 0 computes in this process, which is for the local engine")
        if self.name != RAY and self.address is not None:
            raise OptionError("--address is that of a Ray cluster; it needs --engine ray")

    @property
    def place(self) -> torch.device:
        """The device of a model, as far as it is known before there are workers."""
        return device_named(self.device)

    @property
    def copies(self) -> int:
        """How many workers hold a model in the memory of that device, at most."""
        if self.name == RAY or not self.workers:
            return 1
        return devices(self.device, self.workers).count(devices(self.device, 1)[0])

    def executor(self) -> Executor:
        """Start the workers."""
        if self.name == RAY:
            from layerimp.bench.executors.ray import Ray

            return Ray(self.address, self.workers)
        return InProcess(self.device) if self.workers == 0 else Processes(devices(self.device, self.workers))

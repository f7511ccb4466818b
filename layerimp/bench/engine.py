"""Where the cells of a grid are computed: in this process, or on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from layerimp.bench.executors.base import Executor
from layerimp.bench.executors.in_process import InProcess
from layerimp.errors import OptionError, unknown_name
from layerimp.models.devices import device_named

if TYPE_CHECKING:
    from layerimp.progress import Progress

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)


@dataclass(frozen=True)
class Engine:
    """Where the cells of a grid are computed.

    Attributes:
        name: `local`, or `ray` for a cluster.
        address: The address of the Ray cluster; None for the one in the environment, or else one on this machine.
        workers: The largest number of tasks of a cluster at once; None for as many as it has room for.
        device: The device of the models; None for the first GPU, else the CPU. A cluster assigns devices itself.
    """

    name: str = LOCAL
    address: str | None = None
    workers: int | None = None
    device: str | None = None

    def check(self, progress: Progress) -> None:
        """Refuse a device that is not here, and options that contradict each other; tell of GPUs that stay idle.

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
        if self.name == RAY:
            return
        for option, value in (("address", self.address), ("workers", self.workers)):
            if value is not None:
                raise OptionError(f"--{option} is for a Ray cluster; it needs --engine ray")
        if self.device is None and (gpus := torch.cuda.device_count()) > 1:
            progress.note(f"one of {gpus} GPUs is used; --engine ray uses all of them")

    @property
    def place(self) -> torch.device:
        """The device of a model, as far as it is known ahead."""
        return device_named(self.device)

    def executor(self) -> Executor:
        """Return what computes."""
        if self.name == RAY:
            from layerimp.bench.executors.ray import Ray

            return Ray(self.address, self.workers)
        return InProcess(self.device)

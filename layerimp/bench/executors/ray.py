"""The executor that computes on a Ray cluster, either an existing one or one that it starts on this machine.

Ray is imported only if this executor is used.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerimp._paths import expanded
from layerimp.bench.cells import Outcome
from layerimp.bench.executors.base import Assignment
from layerimp.errors import OptionError
from layerimp.registry.assets import located

if TYPE_CHECKING:
    from layerimp.bench.executors.worker import Worker
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.recipe import Recipe

BESIDE_WEIGHTS = 1 << 30
"""The memory in bytes that a worker needs besides the weights: for libraries and activations."""
COPIES = 2
"""A factor on the size of the weights, since they may be read into a wider dtype."""
PATIENCE = 5.0
"""The time in seconds within which the head of a cluster has to answer."""


@dataclass
class Ray:
    """Computes as tasks of a Ray cluster.

    Args:
        address: The address of the cluster; None for the one in the environment, or else one on this machine.
        workers: The largest number of tasks at once; by default as many as the cluster has room for.

    Raises:
        OptionError: there is no cluster at the address.
    """

    address: str | None = None
    workers: int | None = None
    _running: dict[Any, Assignment] = field(default_factory=dict)
    _drawn: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault(
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
        )  # the future default; given here to avoid a warning
        import ray

        if self.address:
            _knock(self.address)
        started_here: dict[str, Any] = {} if self.address else {"include_dashboard": False}
        ending = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **started_here)
        except Exception as error:
            raise OptionError(f"no Ray cluster answers at {self.address or 'this machine'}: {error}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ending)  # Ray's own handler would end the process immediately
        self._ray = ray
        self._gpus = 1 if ray.cluster_resources().get("GPU") else 0
        needs = {"num_cpus": 1, "num_gpus": self._gpus}
        # The scheduler counts failures, by the same rule for all executors, so that Ray must not retry.
        self._compute = ray.remote(max_retries=0, **needs)(compute)
        self._draw = ray.remote(**needs)(draw)

    @property
    def slots(self) -> int:
        """How many tasks the live nodes have room for; at least one, which may have to wait for a node."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                room += int(min(has.get("CPU", 0), has.get("GPU", 0) if self._gpus else float("inf")))
        return max(1, room if self.workers is None else min(room, self.workers))

    def start(self, assignment: Assignment) -> None:
        """Submit an assignment. Text that several assignments read is drawn once, and shared in the object store."""
        memory = self._memory(assignment.recipe)
        first, text = assignment.first, _text(assignment)
        reads = first.healer if first.kind == "evaluation" else first.content.get("calibration", "read") is not None
        # Most pruners read no text, so that it is drawn for none of them.
        if reads and first.kind != "planning" and text not in self._drawn:
            self._drawn[text] = self._draw.options(**memory).remote(assignment)
        drawn = self._drawn.get(text) if reads else None
        self._running[self._compute.options(**memory).remote(assignment, drawn)] = assignment

    def _memory(self, recipe: Recipe) -> Mapping[str, int]:
        """The memory request of a task; empty if the need is unknown, or if no node has that much memory."""
        place = expanded(located("models", recipe.model))
        weights = sum(path.stat().st_size for path in place.glob("*.safetensors")) if place.is_dir() else 0
        need = COPIES * weights + BESIDE_WEIGHTS
        most = max((node["Resources"].get("memory", 0) for node in self._ray.nodes() if node["Alive"]), default=0)
        return {"memory": need} if weights and need <= most else {}

    def finished(self) -> tuple[Assignment, list[Outcome]]:
        """Wait for a task to finish."""
        (reference,), _ = self._ray.wait(list(self._running), num_returns=1)
        assignment = self._running.pop(reference)
        try:
            return assignment, self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._drawn.pop(_text(assignment), None)  # it may have been on the lost node
            return assignment, assignment.lost(f"its worker was lost: {' '.join(str(error).split())}")

    def stop(self) -> None:
        """Cancel the tasks in progress and leave the cluster. A cluster that was started here ends."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ray.shutdown()


def _knock(address: str) -> None:
    """Check quickly that a cluster answers; Ray itself would keep trying for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return  # not host:port but a name, which Ray resolves
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except OSError as error:
        raise OptionError(f"no Ray cluster answers at {address}: {error.strerror or error}") from None


def _text(assignment: Assignment) -> str:
    """Return a text that identifies the calibration set of an assignment."""
    names = ("model", "dtype", "calibration", "batch_size", "data_dir", "task_path")
    made_by = assignment.recipe.model_dump(mode="json", include=set(names))
    return json.dumps([made_by, assignment.first.seed], sort_keys=True)


_worker: Worker | None = None
"""The worker of this process, which keeps the last model loaded."""


def _own_worker() -> Worker:
    global _worker
    if _worker is None:
        import torch

        from layerimp.bench.executors.worker import Worker

        _worker = Worker(None if torch.cuda.is_available() else "cpu")
    return _worker


def compute(assignment: Assignment, drawn: CalibrationSet | None) -> list[Outcome]:
    """Compute all cells of an assignment, as a task of the cluster."""
    return _own_worker().compute(assignment, drawn)


def draw(assignment: Assignment) -> CalibrationSet | None:
    """Draw the calibration set of an assignment, as a task; None if that fails, since scoring will report the error."""
    try:
        return _own_worker().draw(assignment)
    except Exception:
        return None

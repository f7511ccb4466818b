"""The executor that computes in worker processes on this machine, one for each device.

A pipe connects the scheduler with each worker.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from layerimp.bench.cells import Outcome
from layerimp.bench.executors.base import Assignment

_CONTEXT = get_context("spawn")  # a forked process could not use a GPU


@dataclass
class _Worker:
    """A process, and its current assignment."""

    device: str | None
    process: SpawnProcess
    pipe: Connection
    assignment: Assignment | None = None
    model: str = ""


class Processes:
    """Computes in worker processes.

    Args:
        devices: The device of each worker; a device that is listed twice has two workers.
    """

    def __init__(self, devices: Sequence[str | None]) -> None:
        self.slots = len(devices)
        self._workers = [self._hire(device) for device in devices]

    def _hire(self, device: str | None) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_work, args=(theirs, device, self.slots), daemon=True)
        process.start()
        theirs.close()
        return _Worker(device, process, ours)

    def start(self, assignment: Assignment) -> None:
        """Give an assignment to an idle worker, if possible to one that has the model loaded."""
        idle = [worker for worker in self._workers if worker.assignment is None]
        model = assignment.cells[0].model
        worker = next((each for each in idle if each.model == model), idle[0])
        worker.assignment, worker.model = assignment, model
        try:
            worker.pipe.send(assignment)
        except OSError:  # the worker is dead, which `finished` will find out
            return

    def finished(self) -> tuple[Assignment, list[Outcome]]:
        """Wait for a worker to finish; a worker that died is replaced by another."""
        busy = {worker.pipe: worker for worker in self._workers if worker.assignment}
        worker = busy[next(pipe for pipe in wait(list(busy)) if isinstance(pipe, Connection))]
        assignment, worker.assignment = worker.assignment, None
        assert assignment is not None
        try:
            return assignment, worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._workers[self._workers.index(worker)] = self._hire(worker.device)
            return assignment, assignment.lost(_cause(worker.process.exitcode))

    def stop(self) -> None:
        """Kill the workers."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"its worker was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"its worker ended with exit code {exitcode}"


def _work(pipe: Connection, device: str | None, workers: int) -> None:
    """Run a worker, one of `workers` on this machine, until the scheduler ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the scheduler decides
    threading.Thread(target=_end_with_scheduler, daemon=True).start()
    import torch
    from tqdm import tqdm

    from layerimp.bench.executors.worker import Worker

    tqdm.set_lock(threading.RLock())  # the default lock is a semaphore, which would outlive a killed worker

    if device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))  # a share of the threads that the user allows
    worker = Worker(device)
    with suppress(EOFError, OSError):  # the scheduler has ended
        while True:
            pipe.send(worker.compute(pipe.recv()))


def _end_with_scheduler() -> None:
    """End this worker when the scheduler ends for any reason, even in the middle of the work."""
    scheduler = parent_process()
    assert scheduler is not None
    scheduler.join()
    os._exit(1)


def devices(device: str | None, workers: int | None) -> list[str | None]:
    """Return the device of each worker: the named device; else all GPUs; else the CPU.

    Args:
        device: The device as the user named it.
        workers: The number of workers; by default one for each device.
    """
    import torch

    usable: list[str | None] = [device]
    if device is None and torch.cuda.is_available():
        usable = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    elif device is None:
        usable = ["cpu"]
    return [usable[index % len(usable)] for index in range(workers or len(usable))]

"""What it takes to score and to prune a model that is larger than memory.

    python benchmarks/offloading.py --directory DIR

Writes a checkpoint of the shape of Llama 2 7B in bfloat16 with random weights (13.5 GB in 33 files; one that is in
DIR already is used again). AVSS then scores it over 8 x 256 tokens, block by block, in a process of its own. Beside
that time stand, measured in the same run, one reading of the files from the disk, and the forward passes of the
blocks alone with their weights in memory. The peak of memory is that of what belongs to the process alone. Mapped
pages of the files, which the system takes back when it needs them, are counted apart. Then a quarter of the blocks
is cut from the files, beside a plain copy of the files that stay: of the same bytes, from the same place.

With `--device cuda` the model is scored on a GPU. The time of the blocks alone is then that of the GPU, and the peak of
its memory is told as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from safetensors.torch import save_file
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM

from layerimp import Scorer
from layerimp.models.offloading import open_offloaded
from layerimp.registry.attribution import create
from layerimp.scoring.engine import measure
from layerimp.testing import tiny_tokenizer

SHAPE = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32000}


def write_checkpoint(directory: Path, blocks: int, width: int) -> None:
    """Write a checkpoint with random weights, one file for each block, and one for the rest."""
    shape = {name: size if name == "vocab_size" else size * width // 4096 for name, size in SHAPE.items()}
    config = LlamaConfig(**shape, num_hidden_layers=blocks, dtype=torch.bfloat16, architectures=["LlamaForCausalLM"])
    with torch.device("meta"):
        described = {name: tensor.shape for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    directory.mkdir(parents=True)
    files: dict[str, dict[str, torch.Size]] = {}
    for name, size in described.items():
        part = int(name.split(".")[2]) + 1 if ".layers." in name else 0
        files.setdefault(f"model-{part + 1:05}-of-{blocks + 1:05}.safetensors", {})[name] = size
    torch.manual_seed(0)
    for file, sizes in files.items():
        save_file({name: drawn(size) for name, size in sizes.items()}, directory / file, {"format": "pt"})
    index = {name: file for file, sizes in files.items() for name in sizes}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)


def drawn(size: torch.Size) -> torch.Tensor:
    """Make random weights; factors of norms are one."""
    return torch.ones(size, dtype=torch.bfloat16) if len(size) < 2 else torch.randn(size, dtype=torch.bfloat16) / 64


def cold(directory: Path) -> list[Path]:
    """Return the files of a checkpoint, after removing them from the system's cache."""
    files = sorted(directory.glob("*.safetensors"))
    os.sync()
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return files


def read_all(directory: Path) -> float:
    """Return the seconds to read the files from the disk once."""
    piece = bytearray(8 << 20)
    files = cold(directory)
    began = time.perf_counter()
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(piece):
                pass
    return time.perf_counter() - began


def forwards(directory: Path, rows: int, tokens: int, device: torch.device) -> float:
    """Return the seconds to compute all blocks with weights in memory, from the median of three runs of one block."""
    stack = open_offloaded(directory, device=device)
    weights = {name: drawn(parameter.shape).to(device) for name, parameter in stack[0].named_parameters()}
    times = []
    with torch.no_grad():
        hidden = stack.model.get_input_embeddings()(torch.randint(1, 90, (rows, tokens), device=device))
        rotary = stack.backbone.rotary_emb(hidden, torch.arange(tokens, device=device)[None])
        for _ in range(4):
            began = now(device)
            functional_call(stack[0], weights, (hidden,), {"position_embeddings": rotary})
            times.append(now(device) - began)
    return statistics.median(times[1:]) * len(stack)


def now(device: torch.device) -> float:
    """Return the time in seconds, once a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def watching_memory() -> Iterator[dict[str, int]]:
    """The largest amounts of memory held by this process, in bytes: private memory, and mapped files."""
    peaks, done = {"RssAnon": 0, "RssFile": 0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]) * 1024)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def scored(directory: Path, rows: int, tokens: int, device: torch.device) -> None:
    """Score the checkpoint in this process, and print the time and the memory."""
    torch.empty(0, device=device)  # a GPU takes some time to begin with
    with watching_memory() as peaks:
        began = now(device)
        stack = open_offloaded(directory, device=device)
        opened = now(device) - began
        ids = torch.randint(1, 90, (rows, tokens))
        text = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
        scorer = create("scorer", "avss", {}, len(stack))
        assert isinstance(scorer, Scorer)
        measure(stack, text, {"avss": scorer})
        seconds = now(device) - began
    on_gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    print(json.dumps({"seconds": seconds, "opened": opened, "gpu": on_gpu, **peaks}))


def prune(checkpoint: Path, directory: Path, blocks: int) -> dict[str, float]:
    """Seconds of each stage of pruning the files, and of a plain copy of the files that stay, from a cold cache."""
    output, copy = directory / "pruned", directory / "copy"
    gone = range(blocks // 4, blocks // 2)
    # The first file holds what is outside the blocks; each other file holds one block.
    stay = [file for number, file in enumerate(cold(checkpoint)) if number - 1 not in gone]
    command = [sys.executable, "-m", "layerimp", "prune", "--model", str(checkpoint), "--offload"]
    command += ["--blocks", f"{gone[0]}-{gone[-1]}", "--output", str(output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    stages = dict(re.findall(r"^(copy|compare|probe)[^:]*: ([\d.]+) s\b", done.stderr, re.MULTILINE))
    shutil.rmtree(output)
    cold(checkpoint)
    copy.mkdir()
    began = time.perf_counter()
    for file in stay:
        shutil.copy(file, copy)
    seconds = time.perf_counter() - began
    shutil.rmtree(copy)
    os.sync()
    return {name: float(value) for name, value in stages.items()} | {"cp": seconds}


def main(
    directory: Annotated[Path, typer.Option(help="Where the checkpoint is written; it may be there from before.")],
    blocks: Annotated[int, typer.Option(help="How many blocks it has.")] = 32,
    width: Annotated[int, typer.Option(help="Its width; 4096 is that of Llama 2 7B.")] = 4096,
    rows: Annotated[int, typer.Option(help="Rows of text.")] = 8,
    tokens: Annotated[int, typer.Option(help="Tokens of a row.")] = 256,
    rounds: Annotated[int, typer.Option(help="How often all is measured.")] = 3,
    device: Annotated[str, typer.Option(help="Where it is scored: cpu or cuda.")] = "cpu",
    only: Annotated[Literal["score", "prune"] | None, typer.Option(help="Measure one of the two.")] = None,
    score_only: Annotated[bool, typer.Option("--score-only", hidden=True)] = False,
) -> None:
    if score_only:
        scored(directory, rows, tokens, torch.device(device))
        return
    checkpoint = directory / f"llama-{blocks}x{width}"
    if not checkpoint.exists():
        write_checkpoint(checkpoint, blocks, width)
    size = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    print(f"{size / 1e9:.1f} GB, {blocks} blocks; {rows} x {tokens} tokens; {torch.get_num_threads()} threads")
    command = [sys.executable, __file__, "--score-only", f"--rows={rows}", f"--tokens={tokens}", f"--device={device}"]
    for number in range(rounds if only != "prune" else 0):
        reading, computing = read_all(checkpoint), forwards(checkpoint, rows, tokens, torch.device(device))
        cold(checkpoint)
        done = subprocess.run([*command, "--directory", str(checkpoint)], check=True, capture_output=True, text=True)
        costs = json.loads(done.stdout)
        on_gpu = f", and {costs['gpu'] / 2**30:.2f} GiB on the GPU" if costs["gpu"] else ""
        print(
            f"round {number}: reading {reading:.1f} s, products {computing:.1f} s, offloaded {costs['seconds']:.1f} s "
            f"({costs['seconds'] / (reading + computing):.2f} of their sum; {costs['opened']:.1f} s to open), at most "
            f"{costs['RssAnon'] / 2**30:.2f} GiB of its own and {costs['RssFile'] / 2**30:.2f} GiB of mapped files"
            f"{on_gpu}",
            flush=True,
        )
    for number in range(rounds if only != "score" else 0):
        times = prune(checkpoint, directory, blocks)
        shares = ", ".join(f"{name} {value:.1f} s ({value / times['cp']:.2f})" for name, value in times.items())
        print(f"round {number}, without {blocks // 4} of {blocks} blocks, as shares of a copy: {shares}", flush=True)


if __name__ == "__main__":
    typer.run(main)

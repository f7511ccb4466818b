"""Train the starter model from scratch: `python tools/starter/train.py --output DIR`.

The text of each step depends only on the seed and the step's number, so an interrupted run continues from its last
checkpoint with the same text as without the interruption.
"""

from __future__ import annotations

import math
import os
import random
import time
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
import typer
from corpus import draw
from document_form import pieces
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from layerimp.registry.catalog import registry

if TYPE_CHECKING:
    from corpus import Document, Kind
    from torch import Tensor

END, PAD = "<|end|>", "<|pad|>"
FIRST_MIXTURE: dict[Kind, float] = {"lists": 0.35, "questions": 0.45, "stories": 0.1, "sentiment": 0.1}
MIXTURE: dict[Kind, float] = {"questions": 0.65, "stories": 0.2, "sentiment": 0.15}
"""Each kind's share of a step's tokens: the first at level 0, the second above. Looking up a fact takes longest to
learn: a few hundred steps with the repeated lists, and more than a thousand without them."""

ROWS, ROW = 16, 256
"""Rows per step, and tokens per row."""

TOKENIZER_DOCUMENTS = 4000
MUON_RATE, ADAM_RATE = 0.02, 0.003
WARM_STEPS, FALL_FROM = 100, 2400
EASY_STEPS, HARDER_STEPS = 500, 1500
"""The number of steps at level 0, and the number of steps from there to level 1."""

CHECKPOINT_EVERY = 200


def make_tokenizer(seed: int, size: int = 1536) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer, trained on the model's training text, whose vocabulary covers every byte."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = (
        "".join(piece.text for piece in pieces(kind, document))
        for kind in MIXTURE
        for document in islice(draw(kind, seed, held_out=False), TOKENIZER_DOCUMENTS)
    )
    core.train_from_iterator(text, trainer)
    core.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=END, eos_token=END, pad_token=PAD, model_max_length=512
    )


def make_model(vocab_size: int, seed: int) -> Qwen3ForCausalLM:
    """Return an untrained model with 12 blocks, which are narrow, so that the tasks need many of them."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=12,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.05,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
        )
    )


@dataclass(frozen=True)
class Step:
    """The text of one step.

    Attributes:
        ids: The token ids [row, token].
        weights: The weight of each token in the loss [row, token].
        mask: Whether a token may attend to another, which must not be later, nor of another document or another
            question [row, 1, token, token].
        positions: For each token, the number of earlier tokens to which it may attend [row, token].
    """

    ids: Tensor
    weights: Tensor
    mask: Tensor
    positions: Tensor

    def to(self, device: torch.device) -> Step:
        """Return the same text on another device."""
        return Step(*(tensor.to(device) for tensor in (self.ids, self.weights, self.mask, self.positions)))


def make_step(tokenizer: PreTrainedTokenizerFast, seed: int, number: int, level: float) -> Step:
    """Return the text of one step: rows that are filled with whole documents.

    Args:
        tokenizer: The tokenizer.
        seed: The seed of the training.
        number: The number of the step.
        level: The difficulty of the documents, from 0 to 1.
    """
    rng = random.Random(f"{seed} {number}")
    documents = []
    for kind, share in (MIXTURE if level else FIRST_MIXTURE).items():
        drawn = draw(kind, rng.getrandbits(40), held_out=False, level=level)
        room = share * ROWS * ROW
        while room > 0:
            some = [tokens for tokens in _encoded(tokenizer, kind, list(islice(drawn, 16))) if len(tokens) <= ROW]
            documents += some
            room -= sum(map(len, some))
    rng.shuffle(documents)
    ids = torch.ones(ROWS, ROW, dtype=torch.long)
    weights = torch.zeros(ROWS, ROW)
    owners, questions, positions = (torch.zeros_like(ids) for _ in range(3))
    filled = [0] * ROWS
    for owner, document in enumerate(documents, start=1):
        row = next((row for row in range(ROWS) if filled[row] + len(document) <= ROW), None)
        if row is None:
            continue
        place = row, slice(filled[row], filled[row] + len(document))
        filled[row] += len(document)
        owners[place] = owner
        for into, values in zip((ids, weights, questions, positions), zip(*document, strict=True), strict=True):
            into[place] = torch.tensor(values)
    same = owners[:, :, None] == owners[:, None, :]
    seen = (questions[:, None, :] == 0) | (questions[:, None, :] == questions[:, :, None])
    return Step(ids, weights, (same & seen).tril()[:, None], positions)


class _Token(NamedTuple):
    """A token in its document; see `Step` and `Piece`."""

    id: int
    weight: float
    question: int
    position: int


def _encoded(tokenizer: PreTrainedTokenizerFast, kind: Kind, documents: list[Document]) -> list[list[_Token]]:
    """Return each document's tokens, with a start token, and an end token after the text or after each question."""
    split = [pieces(kind, document) for document in documents]
    encoded = iter(tokenizer([piece.text for parts in split for piece in parts], add_special_tokens=False)["input_ids"])
    encoded_documents = []
    for parts in split:
        tokens = [_Token(0, 0.0, 0, 0)]
        for question, group in groupby(parts, key=lambda piece: piece.question):
            shared = sum(token.question == 0 for token in tokens)
            new = [(token, piece.weight) for piece in group for token in next(encoded)]
            if question:
                new[0] = new[0][0], 0.0  # in the row it follows another question
            if question or not parts[-1].question:
                new.append((0, 1.0))
            tokens += [_Token(token, weight, question, shared + at) for at, (token, weight) in enumerate(new)]
        encoded_documents.append(tokens)
    return encoded_documents


def loss_of(model: Any, step: Step) -> Tensor:
    """Return the weighted mean next-token negative log-likelihood, in nats []."""
    hidden = model.model(
        input_ids=step.ids, attention_mask=step.mask, position_ids=step.positions, use_cache=False
    ).last_hidden_state
    weights = step.weights[:, 1:]
    cared = weights > 0
    logits = model.lm_head(hidden[:, :-1][cared]).float()
    nll = cross_entropy(logits, step.ids[:, 1:][cared], reduction="none")
    return (nll * weights[cared]).sum() / weights.sum()


def _level(number: int) -> float:
    """Return the difficulty of the documents of a step, from 0 to 1."""
    return min(1.0, max(0.0, (number - EASY_STEPS) / HARDER_STEPS))


def _rate(number: int, steps: int) -> float:
    """Return the share of the full learning rate: a warm-up, a plateau, and a linear decay to the end."""
    fall = (steps - number) / (steps - FALL_FROM) if number > FALL_FROM else 1.0
    return min(1.0, (number + 1) / WARM_STEPS, max(0.01, fall))


def _optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks, and AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.05),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(
    output: Annotated[Path, typer.Option(help="The directory for the model, the checkpoint and the log.")],
    steps: Annotated[int, typer.Option(help="The number of steps, of 4,096 tokens each.")] = 4000,
    seed: Annotated[int, typer.Option(help="The seed of the weights and of the text.")] = 0,
) -> None:
    """Train the starter model from scratch, or continue from the checkpoint in OUTPUT, if there is one."""
    if not hasattr(torch.optim, "Muon"):
        raise typer.BadParameter(f"training takes torch 2.9 or newer, for its optimizer Muon, not {torch.__version__}")
    output.mkdir(parents=True, exist_ok=True)
    screen = Console()
    tokenizer = make_tokenizer(seed)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model: Any = make_model(len(tokenizer), seed)
    model.to(device)
    optimizers = _optimizers(model)
    full = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    checkpoint, first = output / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        if (saved["steps"], saved["seed"]) != (steps, seed):
            raise typer.BadParameter(f"{checkpoint} is of another run: steps {saved['steps']}, seed {saved['seed']}")
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        first = saved["number"]
    count = sum(p.numel() for p in model.parameters())
    screen.print(f"{count:,} parameters, {len(tokenizer)} tokens; steps {first} to {steps}")
    started, mean = time.monotonic(), math.nan
    with (output / "training.log").open("a") as log:
        for number in range(first, steps):
            step = make_step(tokenizer, seed, number, _level(number)).to(device)
            for optimizer, rate in zip(optimizers, full, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * _rate(number, steps)
            with torch.autocast(device.type, torch.bfloat16):
                loss = loss_of(model, step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
            done = number + 1
            if done % 50 == 0 or done == steps:
                speed = (done - first) * ROWS * ROW / (time.monotonic() - started)
                left = (steps - done) * ROWS * ROW / speed / 60
                line = f"step {done}: loss {mean:.4f}, level {_level(number):.2f}, {speed:,.0f} tokens/s"
                screen.print(f"{line}, {left:.0f} min left")
                log.write(line + "\n")
                log.flush()
            if done % CHECKPOINT_EVERY == 0 or done == steps:
                _save(checkpoint, model, optimizers, done, steps, seed)
        model.bfloat16().save_pretrained(output / "model")
        tokenizer.save_pretrained(output / "model")
        line = _scores(model, tokenizer)
        screen.print(f"saved {output / 'model'}: {line}")
        log.write(line + "\n")


def _scores(model: Any, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the model's metrics on the shipped tasks, as one line."""
    tasks = [f"starter_{kind}" for kind in ("stories", "sentiment", "qa")]
    harness: Any = registry().create("evaluator", "harness", {"tasks": tasks, "batch_size": 32})
    metrics = harness.evaluate(model, tokenizer)
    return ", ".join(f"{metric.task} {metric.name} {metric.value:.4f}" for metric in metrics)


def _save(
    checkpoint: Path, model: Any, optimizers: list[torch.optim.Optimizer], number: int, steps: int, seed: int
) -> None:
    """Write the checkpoint atomically."""
    state = {"number": number, "steps": steps, "seed": seed, "model": model.state_dict()}
    partial = checkpoint.with_suffix(".partial")
    torch.save(state | {"optimizers": [optimizer.state_dict() for optimizer in optimizers]}, partial)
    os.replace(partial, checkpoint)


if __name__ == "__main__":
    typer.run(train)

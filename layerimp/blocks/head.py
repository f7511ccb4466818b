"""The head: from a backbone's last hidden state to the predictions, for any architecture and vocabulary.

Nothing is known by name: the whole model is called while its backbone returns a stored output. So everything that a
model does after its backbone (a scale or a cap on the logits, biases, the pooling of a classifier) is done by the model
itself. The logits of a language model are computed for a few tokens at a time, and only for tokens with a target: the
logits of a whole batch never exist at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from layerimp.blocks.equivalence import TOLERANCE, deviation
from layerimp.blocks.forward import called, computing, run
from layerimp.blocks.modes import in_eval_mode
from layerimp.blocks.stack import BlockStack, probe_ids
from layerimp.errors import ModelError, PredictionError
from layerimp.stats import chunks, working_dtype

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch

CHUNK_LOGITS = 1 << 25
"""The number of logits and gradients of logits that exist at once: 128 MiB in float32. With fewer, reading the matrix
would take longer than multiplying by it."""

Quantity = Literal["nll", "logit"]
"""A quantity of a target: its negative log-likelihood, or its logit before any scale or cap."""


@dataclass(frozen=True)
class Targets:
    """What a model should predict in one batch.

    Attributes:
        batch: The batch.
        ids: Token or class ids [batch, position]: a language model predicts at every position of the row, a
            classifier at one.
        mask: [batch, position]; False where there is nothing to predict: at a row's last token, and at padding.
    """

    batch: Batch
    ids: Tensor
    mask: Tensor


class Head:
    """The part of a model after its backbone.

    Attributes:
        kind: What the model predicts: the next token, or a label.
        backbone: The part of the model that ends where the head begins; called like `BlockStack.backbone`. The methods
            take its output.
        num_classes: The number of possible tokens or labels.
        field: The field of the backbone's output that holds the last hidden state [batch, seq, hidden].

    Raises:
        PredictionError: the model predicts neither the next token nor a label.
    """

    kind: Literal["next-token", "label"]
    backbone: nn.Module
    field: str

    def __init__(self, stack: BlockStack) -> None:
        self._model, self._device = stack.model, stack.device
        self._prove(stack)

    def _prove(self, stack: BlockStack) -> None:
        """Find out on a few tokens what the model predicts, and verify that the head computes it."""
        ids = probe_ids(stack)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        name, labels = type(self._model).__name__, getattr(self._model.config, "num_labels", 0)
        if self._model.config.is_encoder_decoder:
            raise PredictionError(f"{name} predicts from two texts, and its blocks read one")
        calls: list[tuple[nn.Module, Any]] = []
        with ExitStack() as hooks, in_eval_mode(self._model), torch.inference_mode():
            for part in _parts(stack):
                note = part.register_forward_hook(lambda module, _args, output: calls.append((module, output)))
                hooks.enter_context(note)
            logits = getattr(called(self._model, **inputs), "logits", None)
        if isinstance(logits, Tensor) and logits.shape[:2] == ids.shape and self._model.can_generate():
            self.kind = "next-token"
        elif isinstance(logits, Tensor) and logits.shape == (1, labels):
            self.kind = "label"
        else:
            raise PredictionError(f"{name} predicts neither the next token nor a label")
        if self.kind == "label" and (labels < 2 or self._model.config.problem_type == "multi_label_classification"):
            raise PredictionError(f"{name} does not predict one label of several")
        self.num_classes = logits.shape[-1]
        # Among the parts that hold the blocks, the outermost returns last.
        self.backbone, output = calls[-1] if calls else (self._model, None)
        if not isinstance(output, ModelOutput):
            raise PredictionError(f"{name} has no part that ends where its head begins")
        self.field = next(field for field, value in output.items() if isinstance(value, Tensor))
        if not logits.isfinite().all():
            return  # nothing can be found out; the sweep will name the block
        with in_eval_mode(self._model), torch.inference_mode():
            if (off := deviation(logits, self._logits(output, inputs))) > TOLERANCE:
                raise PredictionError(
                    f"the head of {name} reads more than its backbone's output ({off:.2g} roundings off)"
                )

    def _logits(self, output: ModelOutput, inputs: Batch) -> Tensor:
        """Return the model's logits if its backbone returns `output`, whatever the input is."""
        with computing(self.backbone, lambda *_args, **_kwargs: output):
            logits: Tensor = called(self._model, **inputs).logits
        return logits

    def targets(self, batch: Batch, output: ModelOutput) -> Targets:
        """Return the targets of a batch.

        Args:
            batch: The batch, padded on the right.
            output: The output of the intact backbone. Without labels, a classifier's targets are its own predictions.
        """
        mask = batch["attention_mask"].bool()
        if self.kind == "label":
            labels = batch.get("labels")
            if labels is None:
                labels = self.label_logits(output, batch).argmax(dim=-1)
            return Targets(batch, labels[:, None], torch.ones_like(labels[:, None], dtype=torch.bool))
        following = mask.roll(-1, dims=1)
        following[:, -1] = False
        ids = batch["input_ids"].roll(-1, dims=1)
        return Targets(batch, ids, mask & following)

    def labelled(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        """Return batches for a classifier with the intact model's predictions as labels, unless they have labels.

        They are needed where blocks are bypassed: the predictions of what is left say nothing of the intact model.
        """
        if self.kind != "label":
            return batches
        return [batch if "labels" in batch else {**batch, "labels": self._predicted(batch)} for batch in batches]

    def _predicted(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            return self.label_logits(run(self.backbone, batch), batch).argmax(dim=-1)

    def log_probs(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the natural logarithm of each target's probability.

        Args:
            output: The output of the backbone.
            targets: The targets.

        Returns:
            The values [batch, position], 0 at positions without a target; float64 if the model computes in float64,
            else float32.
        """
        if self.kind == "label":
            return _log_probs(self.label_logits(output, targets.batch), targets.ids[:, 0])[:, None]
        hidden: Tensor = output[self.field]
        values = hidden.new_zeros(targets.ids.shape, dtype=working_dtype(hidden.dtype))
        parts = [
            _log_probs(self.token_logits(output, rows), ids) for rows, ids in self._rows(hidden, targets, CHUNK_LOGITS)
        ]
        if parts:
            values[targets.mask.to(values.device)] = torch.cat(parts).to(values.device)
        return values

    def gradient(
        self, output: ModelOutput, targets: Targets, quantity: Quantity = "nll"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a quantity of each target, and the gradient of the sum with respect to the backbone's output.

        To continue into the backbone: `torch.autograd.backward([output[f] for f in fields], fields.values())`.

        Args:
            output: The output of the backbone; its graph is neither read nor changed.
            targets: The targets.
            quantity: The quantity. For the logit of a token, the logits of other tokens are not computed.

        Returns:
            The quantities [target] in float64, and the gradients by field of the output, each in the field's shape: the
            last hidden state [batch, seq, hidden] for a language model; every field that requires grad for a
            classifier.

        Raises:
            ModelError: the quantity is the logit, and the logits of a language model are not a product of the last
                hidden state and a matrix.
        """
        if self.kind == "label":
            leaves = {
                field: value.detach().requires_grad_()
                for field, value in output.items()
                if isinstance(value, Tensor) and value.requires_grad
            }
            with torch.enable_grad():
                logits = self.label_logits(_with(output, leaves), targets.batch)
            values, slope = _outcome(logits, targets.ids[:, 0], quantity)
            gradients = torch.autograd.grad(logits, list(leaves.values()), slope, materialize_grads=True)
            return values, dict(zip(leaves, gradients, strict=True))
        hidden: Tensor = output[self.field].detach()
        values_of, parts = [hidden.new_zeros(0, dtype=torch.float64)], [hidden.new_zeros(0, hidden.shape[-1])]
        unembedding = self.unembedding(output) if quantity == "logit" else None
        for rows, ids in self._rows(hidden, targets, CHUNK_LOGITS // 2):
            leaf = rows.requires_grad_()
            with torch.enable_grad():  # a sweep's rules need a graph to see what a bias adds
                if unembedding is None:
                    logits = self.token_logits(output, leaf)
                else:
                    logits, ids = _own_logits(unembedding, leaf, ids), torch.zeros_like(ids)
            values, slope = _outcome(logits, ids, quantity)
            (part,) = torch.autograd.grad(logits, [leaf], slope)
            del logits, slope  # so that they do not exist together with the next ones
            values_of.append(values.to(hidden.device))
            parts.append(part.to(hidden.device))
        gradient = torch.zeros_like(hidden)
        gradient[targets.mask.to(hidden.device)] = torch.cat(parts)
        return torch.cat(values_of), {self.field: gradient}

    def unembedding(self, output: ModelOutput) -> nn.Linear:
        """Return the module that turns the last hidden state into logits, after checking this on a token."""
        read: list[Tensor] = []
        module = self._model.get_output_embeddings()
        hidden: Tensor = output[self.field].detach()[:1, :1]
        if isinstance(module, nn.Linear) and module.out_features == self.num_classes:
            with module.register_forward_pre_hook(lambda _module, args: read.append(args[0])), torch.no_grad():
                self.token_logits(output, hidden[0])
            if len(read) == 1 and torch.equal(read[0].to(hidden.device), hidden):
                return module
        raise ModelError(f"the logits of {type(self._model).__name__} are not its last hidden state times a matrix")

    def _rows(self, hidden: Tensor, targets: Targets, logits: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield hidden states [token, hidden] with their targets [token], in chunks of at most `logits` logits."""
        size = max(1, logits // self.num_classes)
        rows, ids = hidden[targets.mask.to(hidden.device)], targets.ids[targets.mask]
        return zip(rows.split(size), ids.split(size), strict=True) if len(ids) else iter(())

    def token_logits(self, output: ModelOutput, rows: Tensor) -> Tensor:
        """Return the logits [token, vocabulary] for hidden states [token, hidden]."""
        inputs = {"input_ids": torch.zeros(1, len(rows), dtype=torch.long, device=self._device)}
        return self._logits(_with(output, {self.field: rows[None]}), inputs)[0]

    def label_logits(self, output: ModelOutput, batch: Batch) -> Tensor:
        """Return the logits [batch, class], row by row, since some heads find the last token only without padding."""
        logits = []
        for index, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
            row = {field: value[index : index + 1] for field, value in output.items() if isinstance(value, Tensor)}
            row[self.field] = row[self.field][:, :length]
            inputs = {name: batch[name][index : index + 1, :length] for name in ("input_ids", "attention_mask")}
            logits.append(self._logits(_with(output, row), inputs))
        return torch.cat(logits)


def _parts(stack: BlockStack) -> list[nn.Module]:
    """Return the parts of the model that hold the blocks, without the model itself and the list of blocks."""
    names = stack.path.split(".")[:-1]
    return [stack.model.get_submodule(".".join(names[: depth + 1])) for depth in range(len(names))]


def _with(output: ModelOutput, fields: Mapping[str, Tensor]) -> ModelOutput:
    """Return an output of the same kind with other tensors in some fields."""
    return type(output)(**{**output, **fields})


def _log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probability [row] of `ids` [row] under `logits` [row, class]."""
    dtype, ids = working_dtype(logits.dtype), ids.to(logits.device)
    sums = torch.cat([torch.logsumexp(rows.to(dtype), dim=-1) for rows in chunks(logits)])
    return logits.gather(-1, ids[:, None])[:, 0].to(dtype) - sums


def _own_logits(unembedding: nn.Linear, rows: Tensor, ids: Tensor) -> Tensor:
    """Return the logit [token, 1] of each token's own target `ids` [token] for hidden states [token, hidden]."""
    rows, ids = (tensor.to(unembedding.weight.device) for tensor in (rows, ids))
    logits = (rows * unembedding.weight[ids]).sum(dim=-1)
    return (logits if unembedding.bias is None else logits + unembedding.bias[ids])[:, None]


def _outcome(logits: Tensor, ids: Tensor, quantity: Quantity) -> tuple[Tensor, Tensor]:
    """Return a quantity [row] of `ids` [row] under `logits` [row, class] in float64, and its gradient [row, class]."""
    ids = ids.to(logits.device)
    if quantity == "nll":
        return -_log_probs(logits.detach(), ids).double(), _slope(logits, ids)
    chosen = ids[:, None]
    slope = torch.zeros_like(logits, requires_grad=False).scatter_(-1, chosen, 1.0)
    return logits.detach().gather(-1, chosen)[:, 0].double(), slope


def _slope(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the gradient [row, class] of the negative log-likelihood of `ids` [row]: softmax - 1 at the target."""
    slope = torch.empty_like(logits, requires_grad=False)
    sources = list(chunks(logits.detach()))
    for rows, part, own in zip(sources, chunks(slope), ids.split([len(rows) for rows in sources]), strict=True):
        probs = torch.softmax(rows.to(working_dtype(rows.dtype)), dim=-1)
        probs[torch.arange(len(own), device=probs.device), own] -= 1  # in half precision, p near 1 would be 1 already
        part.copy_(probs)
    return slope

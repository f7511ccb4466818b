"""The backward pass under the relevance rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from layerimp.blocks import probe_ids, run
from layerimp.errors import ModelError
from layerimp.sweep import Backward, Scouting
from layerimp_lrp.activations import linear_activations
from layerimp_lrp.rules import Rules, RuleSet

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.blocks import BlockStack
    from layerimp.sweep import Quantity

VISIBLE = ("eager", "sdpa")
"""The attention implementations that consist of functions covered by the rules."""


@dataclass(frozen=True)
class Relevance(Backward):
    """One forward and one backward pass through the backbone, in which gradient times activation is relevance.

    Relevance starts at the sum of the targets' logits; log-probabilities would not conserve relevance. Under
    `layerimp_lrp.rules.CONSTANTS`, `Trace.extras` holds the contribution of the constants from the block on.

    Attributes:
        target: The quantity at which relevance starts.
        rule: How attention is treated; see `layerimp_lrp.rules`.
    """

    target: Quantity = "logit"
    rule: RuleSet = "cp"

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Check on a few tokens that the rules cover the model's attention and normalizations.

        Raises:
            ModelError: the model's attention, or one of its normalizations, is a kernel that the rules cannot follow.
        """
        scouting = super().scout(stack, sites)
        kind, attention = type(stack.model).__name__, getattr(stack.config, "_attn_implementation", None)
        if attention not in (None, *VISIBLE):
            raise ModelError(
                f"the attention of this {kind} ({attention}) is a kernel that relevance cannot be followed through; "
                'load the model with attn_implementation="sdpa" or "eager"'
            )
        hits = self._hits(stack)
        if not hits["attention"]:
            raise ModelError(f"this {kind} has no attention that the rules of relevance know")
        if not hits["normalization"]:
            raise ModelError(
                f"the normalizations of this {kind} are kernels that relevance cannot be followed through; load the "
                "model without kernels in place of its modules"
            )
        return scouting

    def _hits(self, stack: BlockStack) -> Counter[str]:
        """Return how often the rules meet attention and normalizations in a forward pass of a few tokens."""
        ids, rules = probe_ids(stack), Rules(self.rule)
        embedding = stack.model.get_input_embeddings()
        hook = embedding.register_forward_hook(lambda _module, _args, output: output.detach().requires_grad_())
        try:
            with torch.inference_mode(False), torch.enable_grad(), rules:
                run(stack.backbone, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        finally:
            hook.remove()
        return rules.hits

    @contextmanager
    def rules(self, stack: BlockStack) -> Iterator[dict[str, Tensor]]:
        """Apply the relevance rules inside this context, and yield the contributions of the constants so far."""
        rules = Rules(self.rule)
        with linear_activations(stack.model), rules:
            yield rules.sums

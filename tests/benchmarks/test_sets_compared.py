"""What `sets_compared.py` computes by itself."""

from __future__ import annotations

import pytest
import torch
from sets_compared import where_head_reads
from transformers import BertConfig, BertForSequenceClassification

import layerimp


def test_tokens_count_as_much_as_the_head_reads() -> None:
    """Of a BERT, the head reads the first token alone."""
    torch.manual_seed(0)
    size = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(**size, intermediate_size=32)).eval()
    ids = torch.tensor([[2, 9, 31, 3], [2, 17, 3, 0]])
    mask = (ids > 0).long()
    scores = where_head_reads(layerimp.find_blocks(model), [{"input_ids": ids, "attention_mask": mask}])
    expected = torch.zeros(3, dtype=torch.float64)
    for row, length in zip(ids, (4, 3), strict=True):
        states = model(input_ids=row[None, :length], output_hidden_states=True)
        loss = -states.logits.log_softmax(-1).max()
        gradients = torch.autograd.grad(loss, states.hidden_states[1:])
        for block, gradient in enumerate(gradients):
            added = states.hidden_states[block + 1] - states.hidden_states[block]
            expected[block] += float((gradient * added)[0, 0].sum().abs().detach())
    assert scores == pytest.approx(expected.tolist(), rel=1e-4)

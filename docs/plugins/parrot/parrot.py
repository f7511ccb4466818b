"""A made-up architecture that has two lists of the same length, of which the larger one is not the stack of blocks."""

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput


class ParrotConfig(PretrainedConfig):
    model_type = "parrot"

    def __init__(self, vocab_size=97, hidden_size=16, num_hidden_layers=4, feathers=4, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers, self.feathers = num_hidden_layers, feathers


class ParrotBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.up = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.down = nn.Linear(4 * config.hidden_size, config.hidden_size)

    def forward(self, hidden_states):
        return hidden_states + self.down(torch.relu(self.up(self.norm(hidden_states))))


class ParrotPreTrainedModel(PreTrainedModel):
    config_class = ParrotConfig


class Parrot(ParrotPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(ParrotBlock(config) for _ in range(config.num_hidden_layers))
        self.feathers = nn.ModuleList(nn.Linear(90, 90) for _ in range(config.feathers))
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        hidden = self.words(input_ids)
        for block in self.blocks:
            hidden = block(hidden)
        return BaseModelOutput(last_hidden_state=hidden)


class ParrotForCausalLM(ParrotPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.bird = Parrot(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.bird.words

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        return CausalLMOutput(logits=self.lm_head(self.bird(input_ids).last_hidden_state))


AutoConfig.register("parrot", ParrotConfig)
AutoModelForCausalLM.register(ParrotConfig, ParrotForCausalLM)

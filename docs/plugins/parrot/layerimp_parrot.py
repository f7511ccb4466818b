from parrot import ParrotForCausalLM

from layerimp import hookimpl
from layerimp.blocks import BlockStack


@hookimpl
def layerimp_blocks(model):
    if isinstance(model, ParrotForCausalLM):
        return BlockStack(model, "bird.blocks", model.config, backbone=model.bird)
    return None

from layerimp import Importance, Scorer, hookimpl
from layerimp.stats import Mean
from layerimp.sweep import Forward


class Step(Scorer):
    """Mean L2 norm of what the block adds to the residual stream."""

    name = "step"
    sweep = Forward()
    observes = frozenset({"block_in", "block_out"})
    identity_scores_least = True

    def __init__(self, num_blocks, config=None):
        super().__init__(num_blocks, config)
        self.mean = Mean(num_blocks)

    def update(self, trace):
        step = trace.rows("block_out") - trace.rows("block_in")
        self.mean.add(trace.block, step.norm(dim=-1))

    def compute(self):
        return Importance(scores=self.mean.value().tolist())


@hookimpl
def layerimp_scorers():
    return [Step]

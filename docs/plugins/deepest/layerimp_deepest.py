from layerimp import PrunePlan, Pruner, hookimpl


class Deepest(Pruner):
    """Removes the deepest blocks that may go."""

    name = "deepest"

    def plan(self, scoring, budget):
        free = [block for block in reversed(range(budget.num_blocks)) if block not in budget.protected]
        order = [*budget.forced, *(block for block in free if block not in budget.forced)]
        return PrunePlan(num_blocks=budget.num_blocks, blocks=order[: budget.count], reason="deepest first")


@hookimpl
def layerimp_pruners():
    return [Deepest]

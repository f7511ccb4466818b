from layerimp import PrunePlan, Pruner, hookimpl


class Deepest(Pruner):
    """Removes the deepest blocks that may go."""

    name = "deepest"

    def plan(self, scoring, budget):
        deepest_first = [*budget.forced, *reversed(range(budget.num_blocks))]
        free = [b for b in dict.fromkeys(deepest_first) if b not in budget.protected]
        return PrunePlan(num_blocks=budget.num_blocks, blocks=free[: budget.count])


@hookimpl
def layerimp_pruners():
    return [Deepest]

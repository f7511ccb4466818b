from layerimp import Healer, hookimpl
from layerimp.healer import Repair
from layerimp.healing import replace, states


class Louder(Healer):
    """Scales the last map before each gap, to bring the stream close to what it was."""

    name = "louder"

    def heal(self, case):
        return [self.repair(case, gap) for gap in case.gaps]

    def repair(self, case, gap):
        if gap.writer is None or gap.writer.norm:
            return Repair(gap, "nothing", gap.obstacle or "a norm comes after the map")
        square = product = 0.0
        for state in states(case, gap, case.batches):
            added = gap.writer.scale * state.written
            square += float(added.square().sum())
            product += float((added * (state.target - state.stream)).sum())
        factor = 1 + product / square
        linear = case.pruned.model.get_submodule(gap.writer.path)
        for name, value in linear.named_parameters():
            replace(case.pruned.model, f"{gap.writer.path}.{name}", factor * value)
        return Repair(gap, "louder", numbers={"factor": factor})


@hookimpl
def layerimp_healers():
    return [Louder]

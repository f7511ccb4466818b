from layerimp import Evaluator, Metric, hookimpl


class Parameters(Evaluator):
    """Counts the parameters."""

    name = "parameters"
    kind = "cost"
    needs_weights = False

    def evaluate(self, model, tokenizer):
        count = sum(parameter.numel() for parameter in model.parameters())
        return [Metric("model", "parameters", count, higher_is_better=False)]


@hookimpl
def layerimp_evaluators():
    return [Parameters]

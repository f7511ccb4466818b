"""The contract of a comparer: an evaluator that measures how far a model is from the intact one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from layerimp.component import Options
from layerimp.evaluator import Evaluator, Reading

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import Batch
    from layerimp.fidelity.record import Fidelity
    from layerimp.metric import Metric

ROWS, LABELLED_ROWS = 12, 128
"""On how many rows language models are compared by default, and classifiers."""
BRIEF_ROWS, BRIEF_TOKENS, BRIEF_SHARE = (2, 8), (48, 128), 32
"""How many rows a brief comparison has, how many tokens a row has, and that it reads a 32nd of the calibration text."""
Comparison = Callable[["PreTrainedModel"], "Fidelity"]
"""Compares a model with the intact one."""


def _within(limits: tuple[int, int], value: int) -> int:
    return max(limits[0], min(limits[1], value))


class Comparer(Evaluator):
    """Compares models with the intact one, and leaves all of them as they were. A run has at most one.

    A `Config` of its own is derived from `Comparer.Config`, whose options say what text the models are compared on.

    A comparer of the top tokens alone:

        from layerimp import find_blocks
        from layerimp.fidelity import Comparer, Fidelity, Intact


        class Agreement(Comparer):
            \"\"\"The share of predictions with the same top token.\"\"\"

            name = "agreement"

            def comparison(self, intact, tokenizer, text):
                known = Intact(find_blocks(intact), text)
                return lambda model: Fidelity(agreement=known.divergence(find_blocks(model)).agreement)
    """

    kind = "fidelity"

    class Config(Options):
        """The text that models are compared on."""

        text: str | None = Field(
            None,
            description="Another text than documents of the calibration text: a file, a text that a plugin ships, a "
            "data set on the hub, or task:NAME.",
        )
        rows: int | None = Field(
            None,
            ge=1,
            description=f"The number of rows of text; fewer if there is less text. By default {ROWS}, and "
            f"{LABELLED_ROWS} for a classifier, which predicts once for each.",
        )

        brief: bool = Field(
            False,
            description="Whether the divergence and the agreement alone are measured, on at most 8 rows of 128 tokens, "
            "and two texts of 32 tokens shown. So do a run and a grid whose evaluators are not named.",
        )

        def size(self, samples: int, length: int, *, classifier: bool) -> tuple[int, int]:
            """Return the number of rows on which models are compared, and the most tokens of a row.

            Args:
                samples: The rows of calibration text; a brief comparison reads a 32nd of its tokens, or little more.
                length: The tokens of such a row.
                classifier: Whether the models are classifiers.
            """
            if not self.brief:
                return self.rows or (LABELLED_ROWS if classifier else ROWS), length
            share = samples * length // BRIEF_SHARE
            rows = self.rows or _within(BRIEF_ROWS, share // BRIEF_TOKENS[0])
            return rows, min(length, _within(BRIEF_TOKENS, share // rows))

    config: Config
    baseline: bool = False
    """Whether the model that is compared now is that of a baseline; set before each comparison."""

    @classmethod
    def fault(cls) -> str | None:
        """Describe what is wrong with the class itself; None if nothing is."""
        if not issubclass(cls.Config, Comparer.Config):
            return f"the Config of {cls.__name__} is not derived from Comparer.Config"
        return super().fault()

    @abstractmethod
    def comparison(
        self, intact: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, text: Iterable[Batch]
    ) -> Comparison:
        """Run the intact model, and return what compares other models with it.

        What is needed of the intact model's predictions is kept, so that it runs once for any number of models. The
        intact model may be used later as well: while models are compared, it is intact.

        Args:
            intact: The intact model.
            tokenizer: The tokenizer of all models.
            text: Batches of text that no scorer and no healer has read, padded on the right, on any device; the same
                in every iteration.

        Raises:
            ModelError: the intact model cannot be compared.
            CalibrationError: the text holds nothing to compare models on.
        """
        raise NotImplementedError

    def reading(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, rows: int, length: int
    ) -> Reading:
        """How much a comparison reads of one model: by default the text, once."""
        rows, tokens = self.config.size(rows, length, classifier=not model.can_generate())
        return Reading(documents=rows, tokens=rows * tokens, predicted=rows * tokens)

    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[Metric]:
        """Return nothing: a model alone cannot be compared."""
        return []

"""The evaluator `fidelity`: how far a model's predictions, its copying and its texts are from the intact model's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from layerimp import find_blocks, hookimpl
from layerimp.errors import ModelError
from layerimp.evaluator import Reading
from layerimp.fidelity import Comparer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp import Evaluator
    from layerimp.blocks import BlockStack
    from layerimp.fidelity import Comparison, Continuation, Copying, Fidelity, Generation
    from layerimp.sweep import Batch


class UnmeasuredError(ModelError):
    """A part of the fidelity cannot be measured with these models or this text."""


class FidelityEvaluator(Comparer):
    """How far a model is from the intact one: divergence, agreement, copying and generation."""

    name = "fidelity"
    reference = "Dutta et al. (2024), arXiv:2407.09141: distance metrics for compressed models"

    class Config(Comparer.Config):
        """The options of `fidelity`: the text, and how many texts are generated."""

        prompts: int = Field(24, ge=0, description="The number of prompts that are continued; 0 for none.")
        new_tokens: int = Field(
            64,
            ge=1,
            description="The number of tokens generated for each prompt; with fewer than 32, loops are not counted.",
        )

    config: Config

    def check(self, model: PreTrainedModel) -> None:
        """Refuse a model that predicts neither the next token nor a label."""
        from layerimp.fidelity import Intact

        Intact(find_blocks(model, quantised=True), ())

    def reading(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, rows: int, length: int
    ) -> Reading:
        """How much a comparison reads of one model: the text, its repeated rows, and the prompts with what follows."""
        from layerimp.fidelity import PROMPT_TOKENS

        text, (prompts, new_tokens) = super().reading(model, tokenizer, rows, length), self._texts
        if not model.can_generate():
            return text
        tokens = (1 if self.config.brief else 2) * text.tokens  # unless it is brief, repeated rows are read as well
        written = prompts * new_tokens
        # The heads of both models predict on the text.
        return Reading(text.documents, tokens + prompts * PROMPT_TOKENS + written, predicted=2 * tokens + written)

    def comparison(
        self, intact: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, text: Iterable[Batch]
    ) -> Comparison:
        """Run the intact model, and return what compares other models with it; see `layerimp.fidelity.Comparer`.

        Raises:
            ModelError: the intact model predicts neither the next token nor a label.
            CalibrationError: the text holds nothing to predict.
        """
        from layerimp.fidelity import Fidelity, Intact, Spread

        stack, batches = find_blocks(intact, quantised=True), list(text)
        classes = None if tokenizer is None or not intact.can_generate() else 1 + max(tokenizer.get_vocab().values())
        ways: dict[str, Callable[[], Callable[[BlockStack], Copying | Generation]]] = {
            "copying": lambda: self._copying(stack, tokenizer, batches, classes),
            "generation": lambda: self._generation(stack, tokenizer, batches),
        }
        if self.config.brief:
            del ways["copying"]
        if not self._texts[0]:
            del ways["generation"]
        parts: dict[str, Callable[[BlockStack], Copying | Generation]] = {}
        missing: dict[str, str] = {}
        with self.progress.stage("predict with the intact model"):
            known = Intact(stack, batches, classes=classes)
            for name, way in ways.items():
                try:
                    parts[name] = way()
                except ModelError as error:
                    missing[name] = str(error)

        def compare(model: PreTrainedModel) -> Fidelity:
            other, lacking = find_blocks(model, quantised=True), dict(missing)
            measured: dict[str, Any] = {}
            with self.progress.stage("compare with the intact model"):
                divergence = known.divergence(other)
                for name, part in parts.items():
                    if name == "generation" and self.baseline and self.config.brief:
                        continue
                    try:
                        measured[name] = part(other)
                    except ModelError as error:
                        lacking[name] = str(error)
            return Fidelity(
                predictions=divergence.count,
                divergence=Spread.of(divergence),
                agreement=divergence.agreement,
                agreement_stderr=divergence.agreement_stderr,
                agreement_floor=known.commonest_label,
                missing=lacking,
                **measured,
            )

        return compare

    @property
    def _texts(self) -> tuple[int, int]:
        """The number of texts, and the tokens that are generated for each."""
        brief = self.config.brief and not {"prompts", "new_tokens"} & self.config.model_fields_set
        return (2, 32) if brief else (self.config.prompts, self.config.new_tokens)

    def _copying(
        self, stack: BlockStack, tokenizer: PreTrainedTokenizerBase | None, batches: list[Batch], classes: int | None
    ) -> Callable[[BlockStack], Copying]:
        """Return what measures the copying of a model."""
        from layerimp.fidelity import Copying, Intact, repeated
        from layerimp.models import longest_row

        if not stack.model.can_generate():
            raise UnmeasuredError("a classifier predicts no tokens")
        special = () if tokenizer is None else tokenizer.all_special_ids
        rows = list(repeated(batches, special, longest_row(stack.model)))
        if not rows:
            raise UnmeasuredError("all rows are too short to be repeated")
        known = Intact(stack, [batch for batch, _ in rows], classes=classes, masks=[mask for _, mask in rows])
        return lambda other: Copying.of(known.divergence(other))

    def _generation(
        self, stack: BlockStack, tokenizer: PreTrainedTokenizerBase | None, batches: list[Batch]
    ) -> Callable[[BlockStack], Generation]:
        """Return what compares the texts that a model generates."""
        from layerimp.fidelity import compare_texts, continuations, end_tokens, prompts
        from layerimp.models import longest_row

        if tokenizer is None:
            raise UnmeasuredError("without a tokenizer there is no text")
        count, new = self._texts
        asked = prompts(batches, tokenizer, count)
        if not stack.model.can_generate():
            raise UnmeasuredError(f"{type(stack.model).__name__} does not generate text")
        if not asked:
            raise UnmeasuredError("all documents are too short for a prompt")
        ends = end_tokens(stack.model, tokenizer)

        def written(writer: BlockStack) -> list[Continuation]:
            longest = longest_row(writer.model)
            if longest is not None and max(len(prompt.ids) for prompt in asked) + new > longest:
                raise UnmeasuredError(f"a prompt and {new} tokens more are beyond the model's {longest} positions")
            return continuations(writer, asked, ends, new)

        intact = written(stack)
        return lambda other: compare_texts(asked, intact, written(other), tokenizer, new)


@hookimpl
def layerimp_evaluators() -> list[type[Evaluator]]:
    """Return this plugin's evaluator."""
    return [FidelityEvaluator]

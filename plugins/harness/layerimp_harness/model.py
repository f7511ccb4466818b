"""An lm-eval model that wraps a model in memory: without output, within the free memory, and without side effects."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from layerimp.errors import NonFiniteError, TaskError
from layerimp_harness.batches import Batches, logits_bytes
from layerimp_harness.likelihood import Likelihoods
from layerimp_harness.lm_eval_names import HFLM, get_rolling_token_windows, make_disjoint_window, resolve_max_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.progress import Advance
    from layerimp_harness.likelihood import Done
    from layerimp_harness.rows import TokenRequest


ROUNDING = 1e-6
"""The sum of the shares of finished requests may be too low by this amount."""


class Rolled(float):
    """The log-likelihood of a text.

    Attributes:
        tokens: The number of predicted tokens.
    """

    tokens: int

    def __new__(cls, likelihood: float, tokens: int) -> Rolled:
        """Create the number with its attribute."""
        rolled = super().__new__(cls, likelihood)
        rolled.tokens = tokens
        return rolled


class ModelInMemory(HFLM):  # type: ignore[misc]
    """A loaded model with a copy of its tokenizer; batches shrink when memory runs out.

    A text without a context, such as the first window of a rolling log-likelihood, is scored after a prefix token. The
    prefix is BOS, else EOS, else any other special token in the model's vocabulary. If there is none, scoring such a
    text raises a TaskError.

    Args:
        model: A causal language model or an encoder-decoder, used in its own dtype on its own device.
        tokenizer: The model's tokenizer; left unchanged.
        batch_size: The maximum number of sequences per forward.
        max_length: The maximum number of tokens per sequence; less if the model supports less.
        advance: Called with the number of newly finished requests, and with 0 at the start of a type of requests.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int,
        max_length: int,
        advance: Advance,
    ) -> None:
        embeddings: Any = model.get_input_embeddings()
        self.vocabulary = int(embeddings.weight.shape[0])
        tokenizer = copy.deepcopy(tokenizer)
        special = [
            token
            for token in (
                tokenizer.bos_token_id,
                tokenizer.eos_token_id,
                tokenizer.pad_token_id,
                *tokenizer.all_special_ids,
            )
            if token is not None and token < self.vocabulary
        ]
        if tokenizer.pad_token_id not in special:
            # Padding is masked, so any token will do; lm-eval would add one that is not in the model's vocabulary.
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(special[0] if special else 0)
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            max_length=min(max_length, resolve_max_length(model.config, tokenizer)),
            prefix_token_id=special[0] if special else None,
            # In 16 bits the sum over a window is off by up to 0.4 %, and a perplexity by more.
            softmax_dtype="float32" if model.dtype.itemsize < 4 else None,
        )
        self._batches = Batches(batch_size, self.device)
        self._advance = advance
        self._windows: Counter[int] = Counter()
        self._finished, self._reported = 0.0, 0
        self._owners: Sequence[Any] = ()
        self._likelihoods = Likelihoods(model, self._batches, max_length=self.max_length, vocabulary=self.vocabulary)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """Return the tokens of a text.

        Raises:
            TaskError: a token is not in the model's vocabulary.
        """
        if self.custom_prefix_token_id is None and add_special_tokens is None:
            add_special_tokens = True  # the default; if it is explicit, lm-eval does not decode the missing prefix
        tokens: list[int] = super().tok_encode(string, add_special_tokens=add_special_tokens, **options)
        self._check_vocabulary(max(tokens, default=0))
        return tokens

    def tok_batch_encode(self, strings: Sequence[str], **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return padded tokens and their mask, both [batch, seq]; a text without tokens becomes the prefix."""
        texts = [
            text
            if text.strip() or self.tokenizer(text)["input_ids"]
            else self.tokenizer.convert_ids_to_tokens(self._prefix())
            for text in strings
        ]
        ids, mask = super().tok_batch_encode(texts, **options)
        self._check_vocabulary(int(ids.max()))
        return ids, mask

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> Any:
        """Return the text of tokens; None for None, which lm-eval passes as the EOS of a tokenizer without EOS."""
        return None if tokens is None else super().tok_decode(tokens, skip_special_tokens=skip_special_tokens)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation given its context, and whether the continuation is greedy."""
        self._begin(requests)
        if alone := [request for request in requests if request.args[0] == ""]:
            self._prefix(alone)
        answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return answers

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Rolled]:
        """Return the log-likelihood of each text, in windows of `max_length` tokens; all tokens but BOS count once."""
        self._begin(requests)
        prefix = self._prefix()
        windows: list[TokenRequest] = []
        owners: list[int] = []
        counts: list[int] = []
        for number, request in enumerate(requests):
            if not isinstance(text := request.args[0], str):
                where = f"task {request.task_name!r}: document {request.doc_id}"
                raise TaskError(f"{where} holds a {type(text).__name__}, not text")
            tokens = self.predicted((text,))
            counts.append(len(tokens))
            if not tokens:
                self._finish([request])
            for window in get_rolling_token_windows(tokens, prefix, self.max_length, context_len=1):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(number)
        self._owners = [requests[number] for number in owners]
        self._windows = Counter(map(id, self._owners))
        totals = [0.0] * len(requests)
        for number, (value, _greedy) in zip(owners, self._loglikelihood_tokens(windows, rolling=True), strict=True):
            totals[number] += value
        return list(map(Rolled, totals, counts))

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the text that the model generates after each context, up to a stop sequence."""
        self._begin(requests)
        texts = [""] * len(requests)

        def generate(batch: Sequence[int]) -> None:
            self.batch_size_per_gpu = len(batch)
            chosen = [requests[i] for i in batch]
            try:
                written = super(ModelInMemory, self).generate_until(chosen, disable_tqdm=True)
            except AssertionError as error:  # no room for the generated tokens
                raise TaskError(f"task {chosen[0].task_name!r}: {error}") from error
            for i, text in zip(batch, written, strict=True):
                texts[i] = text
            self._finish(chosen)

        def alike(i: int) -> tuple[str, int]:
            context, settings = requests[i].args
            return repr(settings), -len(self.tok_encode(context))

        self._batches.run(sorted(range(len(requests)), key=alike), generate, lambda _i: 0)
        return texts

    def _loglikelihood_tokens(
        self, requests: Sequence[TokenRequest], *, rolling: bool = False, **_options: Any
    ) -> list[tuple[float, bool]]:
        """Score `requests`; `self._owners` holds lm-eval's request that each of them belongs to.

        Windows of a rolling log-likelihood (`rolling`) share no context, and are not checked for being greedy.
        """
        answers: list[tuple[float, bool]] = [(math.nan, False)] * len(requests)
        for owner, (_key, _context, continuation) in zip(self._owners, requests, strict=True):
            if not 0 < len(continuation) <= self.max_length:
                raise TaskError(
                    f"task {owner.task_name!r}: a continuation of {len(continuation)} tokens; "
                    f"1 to {self.max_length} can be scored"
                )

        def done(number: int, value: float, greedy: bool) -> None:
            if math.isnan(value):
                owner = self._owners[number]
                raise NonFiniteError(f"task {owner.task_name!r}: the logits of document {owner.doc_id} are NaN")
            answers[number] = value, greedy
            self._finish([self._owners[number]])

        if self.backend == "causal":
            self._likelihoods.answer(requests, done, sharing=not rolling, greedy=not rolling)
        else:
            self._encoded_and_decoded(requests, done)
        return answers

    def _encoded_and_decoded(self, requests: Sequence[TokenRequest], done: Done) -> None:
        """Score `requests` with an encoder-decoder, as lm-eval does."""

        def score(batch: Sequence[int]) -> None:
            self.batch_size_per_gpu = len(batch)
            scored = super(ModelInMemory, self)._loglikelihood_tokens([requests[i] for i in batch], disable_tqdm=True)
            for number, answer in zip(batch, scored, strict=True):
                done(number, *answer)

        lengths = [len(context) + len(continuation) for _key, context, continuation in requests]
        order = sorted(range(len(requests)), key=lambda number: -lengths[number])
        self._batches.run(order, score, lambda number: logits_bytes(len(requests[number][2]), self.vocabulary))

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        before, after = super()._encode_pair(context, continuation)
        return before or [self._prefix()], after  # the context may be only spaces, which moved to the continuation

    def predicted(self, arguments: Sequence[str]) -> list[int]:
        """Return the tokens that count in the log-likelihood of a request: those of a text, or of a continuation."""
        if len(arguments) == 2:
            return self._encode_pair(*arguments)[1]
        tokens = self.tok_encode(arguments[0])
        # The tokenizer's own BOS is the context, and is not predicted.
        return tokens[1:] if tokens[:1] == [self._prefix()] else tokens

    def _prefix(self, requests: Sequence[Any] = ()) -> int:
        """Return the token that a text without a context is scored after, for lm-eval's requests with such texts."""
        if self.custom_prefix_token_id is None:
            task = (requests or self._owners)[0].task_name
            raise TaskError(
                f"task {task!r}: a text without a context is scored after BOS, EOS or another special token, and the "
                "tokenizer has none"
            )
        return int(self.custom_prefix_token_id)

    def _check_vocabulary(self, token: int) -> None:
        if token >= self.vocabulary:
            raise TaskError(
                f"the tokenizer makes token {token}, but the model has only {self.vocabulary}: "
                "they do not belong together"
            )

    def _begin(self, requests: Sequence[Any]) -> None:
        self._windows = Counter(map(id, requests))
        self._owners = requests
        self._advance(0)

    def _finish(self, requests: Sequence[Any]) -> None:
        """Report finished requests, or windows of requests; a text of many windows is done bit by bit."""
        for request in requests:
            self._finished += 1 / self._windows[id(request)]
        whole = int(self._finished + ROUNDING)
        self._advance(whole - self._reported)
        self._reported = whole

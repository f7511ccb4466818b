"""Documents and perplexities of `layerimp_pile` and `layerimp_hackernews`."""

from __future__ import annotations

import re
from typing import Any


def hackernews(docs: Any) -> Any:
    """The documents of a data set that are threads of Hacker News; all of them, where no subsets are named."""
    if "meta" not in docs.column_names:
        return docs
    return docs.filter(lambda doc: doc["meta"].get("pile_set_name") == "HackerNews")


def process_results(doc: dict[str, Any], results: list[Any]) -> dict[str, tuple[float, int]]:
    """The log-likelihood of a document, with its tokens, words and bytes.

    Words are what white space parts, and bytes are of UTF-8, both as lm-eval counts them. Only an LM that says how many
    tokens it predicted (`Rolled`) has a perplexity per token.
    """
    (likelihood,) = results
    counts = {
        "token_perplexity": getattr(likelihood, "tokens", None),
        "word_perplexity": len(re.split(r"\s+", doc["text"])),
        "byte_perplexity": len(doc["text"].encode()),
    }
    return {name: (float(likelihood), count) for name, count in counts.items() if count}

"""What models write without the blocks that `layerimp shrink` removed, before anything is repaired.

    python docs/tools/unhealed_texts.py --model smollm2-135m=DIR --model gemma-3-270m=DIR --model starter=starter

Prompts and blocks are those of the stored reports.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer
from shrunk import UNHEALED, defaults, report_of

import layerimp
from layerimp.fidelity.generation import Prompt, continuations, end_tokens


def main(model: Annotated[list[str], typer.Option(help="LABEL=MODEL; repeatable.")]) -> None:
    """Write the texts, and keep them."""
    models, lines = dict(each.split("=", 1) for each in model), []
    for line in defaults():
        report = report_of(line)
        assert report.fidelity is not None
        assert report.fidelity.generation is not None
        first = report.fidelity.generation.samples[0]
        loaded, tokenizer = layerimp.load(models[line["model"]], dtype=report.recipe["dtype"])
        layerimp.prune(loaded, report.plan.blocks)
        prompts = [Prompt(tuple(tokenizer(first.prompt)["input_ids"]), first.prompt)]
        (tokens,) = continuations(layerimp.find_blocks(loaded), prompts, end_tokens(loaded, tokenizer))
        text = tokenizer.decode(list(tokens), skip_special_tokens=True)
        lines.append({"model": line["model"], "prompt": first.prompt, "blocks": report.plan.blocks, "text": text})
    UNHEALED.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

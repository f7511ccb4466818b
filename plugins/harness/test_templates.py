"""What is made of a task once, for all models of a run."""

from __future__ import annotations

from support.lm_tasks import harness


def test_a_template_is_compiled_once(folder, model, tokenizer, monkeypatch):
    import jinja2

    evaluator = harness(folder, "rolling")
    evaluator.prepare()
    compiled = []
    usual = jinja2.Environment.compile
    monkeypatch.setattr(
        jinja2.Environment, "compile", lambda self, source, *args: compiled.append(source) or usual(self, source, *args)
    )
    evaluator.evaluate(model, tokenizer)
    assert compiled.count("{{text}}") == 1

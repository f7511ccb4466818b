"""A function that is not public has few parameters: what travels together is one value."""

from __future__ import annotations

import ast
from pathlib import Path

import layerimp

MOST = 6
ROOT = Path(__file__).parents[1]
FILES = [file for folder in ("layerimp", "plugins") for file in sorted((ROOT / folder).rglob("*.py"))]
EXCEPTIONS = {
    "further_text.__init__",  # public
    "sampling.load_calibration",  # public
    "engine.heal_beside",  # does the work of `layerimp.heal`
    "rules._layer_norm",  # stands for a function of torch, as the next ones do
    "rules._rms_norm",
    "rules._attention",
}


def parameters(function: ast.FunctionDef) -> list[str]:
    """The names of a function's parameters, without the object or the class of a method."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return [argument.arg for argument in every if argument and argument.arg not in ("self", "cls")]


def with_many(source: str) -> list[str]:
    """The functions and methods that are not public and have too many parameters."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return [each.name for each in functions if len(parameters(each)) > MOST and each.name not in layerimp.__all__]


def test_what_travels_together_is_one_value() -> None:
    assert {f"{file.stem}.{name}" for file in FILES for name in with_many(file.read_text())} == EXCEPTIONS


def test_a_function_with_many_parameters_is_found() -> None:
    methods = "class A:\n def f(self, a, b, /, c, *d, e, f, **g): pass"
    assert with_many(f"{methods}\ndef run(a, b, c, d, e, f, g): pass") == ["f"]
    assert not with_many("class A:\n def f(self, a, b, c, d, e, f): pass\ndef f(a, b, c, d, e, f): pass")

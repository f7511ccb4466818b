"""The names that this plugin imports from lm-eval, and the modules that hold them.

lm-eval may move any of them in a new version. So no other module imports from lm-eval; they write `from
layerimp_harness.lm_eval_names import HFLM`. A name is imported when it is first used, because lm-eval takes seconds to
import.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

HOMES = {
    "AGGREGATION_REGISTRY": "lm_eval.api.registry",
    "ConfigurableTask": "lm_eval.api.task",
    "DEFAULT_METRIC_REGISTRY": "lm_eval.api.registry",
    "Entry": "lm_eval.tasks._index",
    "HFLM": "lm_eval.models.huggingface",
    "Kind": "lm_eval.tasks._index",
    "LM": "lm_eval.api.model",
    "METRIC_AGGREGATION_REGISTRY": "lm_eval.api.registry",
    "METRIC_REGISTRY": "lm_eval.api.registry",
    "TaskFactory": "lm_eval.tasks._factory",
    "TaskIndex": "lm_eval.tasks._index",
    "TaskManager": "lm_eval.tasks",
    "_factory": "lm_eval.tasks",
    "clear_torch_cache": "lm_eval.models.utils_hf",
    "evaluate": "lm_eval.evaluator",
    "get_rolling_token_windows": "lm_eval.utils",
    "load_yaml": "lm_eval.tasks._yaml_loader",
    "make_disjoint_window": "lm_eval.utils",
    "metrics": "lm_eval.api",
    "resolve_max_length": "lm_eval.models.utils",
    "tasks": "lm_eval",
    "utils": "lm_eval",
}
"""The module, or the package, that holds each name."""


def __getattr__(name: str) -> Any:
    """Return the object of lm-eval with this name.

    Raises:
        ImportError: the installed version of lm-eval does not have the name in this module.
    """
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = HOMES[name]
    try:
        module = import_module(home)
        value = getattr(module, name, None)
        if value is None:
            value = import_module(f"{home}.{name}")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("lm_eval"):
            raise  # something else that lm-eval needs is missing
        raise ImportError(
            f"lm-eval {version('lm_eval')} has no {home}.{name}, which this version of layerimp-harness needs; "
            "another version of either helps"
        ) from error
    globals()[name] = value
    return value

"""Python runs this when it starts: with the variable of `last_bit`, child processes have other last bits as well."""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


class AfterTorch:
    """Changes the kernels as soon as torch is imported, and imports nothing before."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(cls)
        spec = PathFinder.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            sys.path.append(str(Path(__file__).parents[2]))
            from support.last_bit import install

            sys.path.pop()
            install()

        spec.loader.exec_module = execute_and_change
        return spec


if "LAYERIMP_TEST_LAST_BIT" in os.environ:
    sys.meta_path.insert(0, AfterTorch)

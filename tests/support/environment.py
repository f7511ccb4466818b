"""A virtual environment to install wheels in and to run them, without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the packages of the current one, except layerimp itself."""

    bin: Path

    @classmethod
    def made(cls, directory: Path) -> Environment:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
        (packages,) = (directory / "lib").glob("python*/site-packages")
        # A folder that is named in a .pth file is searched, and its own .pth files are not read: what is installed in
        # editable mode here, as layerimp is, stays unseen.
        seen = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (packages / "beside.pth").write_text("\n".join(seen) + "\n")
        return cls(directory / "bin")

    def install(self, *sources: Path) -> None:
        """Install wheels, or build and install folders, without access to an index."""
        options = "--no-deps --no-build-isolation --no-index --force-reinstall --quiet --disable-pip-version-check"
        self("python", "-m", "pip", "install", *options.split(), *sources)

    def plugins(self) -> dict[str, dict[str, str]]:
        """The output of `layerimp plugins`, by the plugin's name."""
        return {plugin["name"]: plugin for plugin in json.loads(self("layerimp", "plugins", "--json"))["plugins"]}

    def __call__(self, command: str, *args: object, cwd: Path | None = None) -> str:
        environment = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_CURRENT_TEST")
        }
        path = f"{self.bin}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            [self.bin / command, *map(str, args)],
            capture_output=True,
            text=True,
            cwd=cwd or self.bin.parent,
            env=environment | {"PATH": path},
        )
        assert done.returncode == 0, f"{command} {args}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def copied(folder: Path, place: Path) -> Path:
    """A copy to build in, since a build leaves files behind."""
    return Path(shutil.copytree(folder, place / folder.name, ignore=shutil.ignore_patterns("__pycache__", ".*")))

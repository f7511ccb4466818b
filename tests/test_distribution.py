"""What is published: the wheel and the sdist, as one builds them for a release, and as somebody else gets them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pages
import pytest
import yaml
from support.environment import Environment

import layerimp

ROOT = pages.ROOT


def built(source: Path, place: Path, *targets: str) -> list[Path]:
    """Build wheel or sdist by the command of the page on releases; nothing is written to the source."""
    named = [argument for target in targets for argument in ("--target", target)]
    subprocess.run([sys.executable, "-m", "hatchling", "build", *named, "--directory", place], cwd=source, check=True)
    return sorted(place.iterdir())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist."""
    wheel, sdist = built(ROOT, tmp_path_factory.mktemp("published"), "sdist", "wheel")
    return wheel, sdist


@pytest.fixture(scope="module")
def unpacked(published: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is in the sdist."""
    place = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(published[1]) as archive:
        archive.extractall(place, filter="data")
    (folder,) = place.iterdir()
    return folder


@pytest.fixture(scope="module")
def environment(published: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Where the wheel is installed."""
    made = Environment.made(tmp_path_factory.mktemp("installed") / "venv")
    made.install(published[0])
    return made


@pytest.mark.slow
def test_the_default_command_runs_from_the_wheel_outside_the_source(environment: Environment, tmp_path: Path) -> None:
    path = environment("python", "-c", "import layerimp; print(layerimp.__file__)", cwd=tmp_path).strip()
    assert Path(path).is_relative_to(environment.bin.parent)
    assert environment("layerimp", "--version") == f"layerimp {layerimp.__version__}\n"
    failed = {name: plugin for name, plugin in environment.plugins().items() if plugin["status"] != "ok"}
    assert not failed
    first_run = (ROOT / "docs" / "shrink" / "first-run.md").read_text(encoding="utf-8")
    command, shown = next(pair for pair in pages.shown(first_run) if pair[0].code.startswith("layerimp run"))
    printed = environment(*command.code.split(), cwd=tmp_path)
    assert pages.same(shown, printed, command.code), printed
    assert "comparison of starter" in environment("layerimp", "run", "--scorer", "avss", cwd=tmp_path)


@pytest.mark.slow
def test_an_index_takes_what_is_published(published: tuple[Path, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *published], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_the_licences(published: tuple[Path, Path]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = set(contents(published[0]))
    packages = [Path(path).name for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    info = f"layerimp-{layerimp.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {*packages, info}
    assert {f"{info}/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= names
    assert "layerimp/py.typed" in names


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(published: tuple[Path, Path], unpacked: Path, tmp_path: Path) -> None:
    (again,) = built(unpacked, tmp_path, "wheel")
    assert again.name == published[0].name
    assert contents(again) == contents(published[0])


@pytest.mark.slow
def test_the_sdist_holds_what_its_tests_need(environment: Environment, unpacked: Path) -> None:
    folders = ("tests", "docs", "benchmarks", "plugins", "tools")
    for name in (*folders, "Makefile", "mkdocs.yml", "CONTRIBUTING.md", "NOTICE"):
        assert (unpacked / name).exists(), name
    sources = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")}
    assert sources == {path.relative_to(unpacked) for path in (unpacked / "tests").rglob("*.py")}
    tests = ("tests/test_public_surface.py", "tests/docs/test_write_pages.py")
    environment("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=unpacked)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_citation_names_the_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == layerimp.__version__

"""What is known of a model's source: never a path, and never more than it says itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerimp.models.origin import Origin, _card_on_the_hub, origin_of


def directory(path: Path, **said: Any) -> Path:
    """A model directory whose card says this; the weights do not matter here."""
    path.mkdir(parents=True)
    if said:
        (path / "README.md").write_text(f"---\n{yaml.safe_dump(said)}---\n\n# A model\n")
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The hub's cache, with the model org/whole in it."""
    _card_on_the_hub.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--org--whole"
    directory(folder / "snapshots" / "abc", license="mit", base_model="org/older", license_link="LICENSE")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    yield folder
    _card_on_the_hub.cache_clear()


def test_a_directory_says_nothing_but_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = directory(tmp_path / "my model")
    assert origin_of(place) == Origin("my model")
    monkeypatch.chdir(place)
    assert origin_of(".") == Origin("my model")


def test_the_card_of_a_directory_says_what_it_is_based_on(tmp_path: Path) -> None:
    said = {"license": "apache-2.0", "base_model": ["org/base", "/home/me/x", "a/b/c", 3, "gpt2"]}
    assert origin_of(directory(tmp_path / "m", **said)) == Origin("m", ("org/base", "gpt2"), "apache-2.0")


def test_a_configuration_is_not_asked(tmp_path: Path) -> None:
    place = directory(tmp_path / "m")
    (place / "config.json").write_text('{"_name_or_path": "runs/checkpoint-100"}')
    assert origin_of(place).base_model == ()


def test_a_model_on_the_hub_is_its_own_base(hub: Path) -> None:
    link = "https://huggingface.co/org/whole/blob/main/LICENSE"
    assert origin_of("org/whole") == Origin("org/whole", ("org/whole",), "mit", None, link)


def test_a_model_on_the_hub_without_a_card_has_its_name(hub: Path) -> None:
    assert origin_of("org/unknown") == Origin("org/unknown", ("org/unknown",))


def test_a_directory_in_the_cache_of_the_hub_is_known_by_its_id(hub: Path) -> None:
    (hub / "snapshots" / "abc" / "LICENSE").write_text("MIT")
    origin = origin_of(hub / "snapshots" / "abc")
    assert (origin.name, origin.base_model) == ("org/whole", ("org/whole",))
    assert origin.license_file == hub / "snapshots" / "abc" / "LICENSE"


def test_what_no_hub_could_have_is_looked_up_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerimp.models.origin._card_on_the_hub", lambda _: pytest.fail("the hub was asked"))
    assert origin_of("no/such/model") == Origin("no/such/model")


def test_a_model_that_a_plugin_ships_has_the_name_that_users_type() -> None:
    assert origin_of("starter") == Origin("starter", license="apache-2.0")


@pytest.mark.parametrize(
    ("link", "kept", "copied"),
    [
        ("LICENSE", "LICENSE", True),
        ("COPYING.md", None, False),
        ("config.json", None, False),
        ("../LICENSE", None, False),
        ("https://example.org/terms", "https://example.org/terms", False),
        (["LICENSE"], None, False),
    ],
)
def test_only_the_file_of_a_licence_is_copied(link: Any, kept: str | None, copied: bool, tmp_path: Path) -> None:
    place = directory(tmp_path / "m", license="other", license_name="mine", license_link=link)
    (tmp_path / "LICENSE").write_text("of someone else")
    (place / "LICENSE").write_text("mine")
    (place / "config.json").write_text("{}")
    origin = origin_of(place)
    assert (origin.license, origin.license_name, origin.license_link) == ("other", "mine", kept)
    origin.copy_license(directory(tmp_path / "new"))
    assert [file.name for file in (tmp_path / "new").iterdir()] == (["LICENSE"] if copied else [])


@pytest.mark.parametrize(
    "card", [b"", b"no metadata", b"---\n: [\n---\n", b"---\n- a\n---\n", b"---\nlicense: \xff\n---\n"]
)
def test_a_card_that_cannot_be_read_says_nothing(card: bytes, tmp_path: Path) -> None:
    place = directory(tmp_path / "m")
    (place / "README.md").write_bytes(card)
    assert origin_of(place) == Origin("m")

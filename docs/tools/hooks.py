"""The hooks that mkdocs calls while it builds the site; they are named in mkdocs.yml."""

from __future__ import annotations

import re
from typing import Any

import mathml
import reference
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

_COMMANDS = re.compile(r'<div class="language-bash highlight">.*?</div>', re.DOTALL)


def on_config(config: Any) -> Any:
    """Make links to edit a page only if the location of the source is known."""
    if not config.repo_url:
        config.edit_uri = None
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the JSON Schemas."""
    for name, content in reference.schema_files().items():
        files.append(File.generated(config, f"reference/schemas/{name}.json", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_others: Any) -> str:
    """Insert the generated parts of a page."""
    try:
        return reference.expanded(markdown)
    except Exception as error:
        raise PluginError(f"{page.file.src_path}: {type(error).__name__}: {error}") from error


def on_page_content(content: str, **_others: Any) -> str:
    """Convert formulas to MathML, and prevent line breaks in options and in numbers with errors."""
    content = re.sub(r"<code>([^<\n]{1,24})</code>", r'<code class="whole">\1</code>', mathml.with_mathml(content))
    content = _COMMANDS.sub(
        lambda found: re.sub(r"--[a-z]+(?:-[a-z]+)*", r'<span class="whole">\g<0></span>', found[0]), content
    )
    return re.sub(r"<td>([^<\n]{1,16}±[^<\n]{1,16})</td>", r'<td class="whole">\1</td>', content)

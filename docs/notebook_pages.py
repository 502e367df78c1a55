"""Turns notebooks/*.ipynb into pages while mkdocs builds: text, code and the stored outputs. Nothing is executed.

The pages are Markdown, so that they follow the theme, its dark side and its search. Images become files; so do the notebooks
themselves, for download.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = Path(__file__).parents[1] / "notebooks"
COLAB = "https://colab.research.google.com/github/loralab/loralab/blob/main/notebooks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, images and notebooks. mkdocs calls this once."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        images: dict[str, bytes] = {}
        page = to_markdown(json.loads(path.read_text(encoding="utf-8")), path.stem, images)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
        for name, content in images.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def to_markdown(notebook: Mapping[str, Any], name: str, images: dict[str, bytes]) -> str:
    """Return a notebook as Markdown. images: receives the files that it shows."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\((\d\d_\w+)\.ipynb\)", r"(\1.md)", source))
            if len(parts) == 1:  # below the title
                title, _, rest = parts[0].partition("\n")
                links = f"[Open in Colab]({COLAB}/{name}.ipynb) · [Download the notebook]({name}.ipynb)"
                parts[0] = f"{title}\n\n{links}\n{rest}"
        else:
            parts.append(f"```python\n{source}\n```")
            parts += _outputs(cell["outputs"], name, images)
    return "\n\n".join(parts) + "\n"


def _outputs(outputs: list[Mapping[str, Any]], name: str, images: dict[str, bytes]) -> Iterator[str]:
    for output in outputs:
        data = output.get("data", {})
        if output["output_type"] == "stream":
            yield _output(f"```text\n{''.join(output['text']).rstrip()}\n```", "markdown")
        elif "image/png" in data:
            file = f"{name}_{len(images) + 1:02}.png"
            images[file] = base64.b64decode("".join(data["image/png"]))
            yield _output(f"![{_description(data)}]({file})", "markdown")
        elif "text/html" in data:
            yield _output(_plain_html("".join(data["text/html"])))
        elif "text/plain" in data:
            yield _output(f"```text\n{''.join(data['text/plain'])}\n```", "markdown")


def _output(content: str, attributes: str = "") -> str:
    lines = f"\n\n{content}\n\n" if attributes else content
    return f'<div class="notebook-output"{" " + attributes if attributes else ""}>{lines}</div>'


def _description(data: Mapping[str, Any]) -> str:
    return "".join(data.get("text/plain", "figure")).strip("<>") or "figure"


def _plain_html(html: str) -> str:
    """Return the HTML of an output without its own style, on one line: a blank line would end it in Markdown."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    html = re.sub(r'<(table|tr|th|td|thead|tbody)\b[^>]*?(\scolspan="\d+"|\srowspan="\d+")?[^>]*>', r"<\1\2>", html)
    return " ".join(html.split())

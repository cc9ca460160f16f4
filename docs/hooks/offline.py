"""A hook of mkdocs: pages load our own worker for files instead of one from another host."""

from __future__ import annotations

from typing import Any

_FOREIGN = "https://unpkg.com/iframe-worker/shim"


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Replace the address of the script that the offline plug-in adds."""
    depth = page.url.count("/")
    return output.replace(_FOREIGN, f"{'../' * depth}javascripts/file-worker.js")


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """The same for the page of a missing address, at the top of the site."""
    return output_content.replace(_FOREIGN, "javascripts/file-worker.js")

"""A snippet of a language can be read as that language, in every document."""

import ast
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from tests.documents.page import ROOT, documents, page


def _yaml(text: str) -> None:
    list(yaml.safe_load_all(text))


READ: Mapping[str, Callable[[str], object]] = {
    "python": lambda text: compile(text, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT),
    "json": json.loads,
    "yaml": _yaml,
    "toml": tomllib.loads,
}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_snippets_are_of_their_language(path: Path) -> None:
    for snippet in page(path).snippets:
        if snippet.language in READ:
            try:
                READ[snippet.language](snippet.text)
            except (SyntaxError, ValueError, yaml.YAMLError) as error:
                pytest.fail(f"{path.name}:{snippet.line}: {error}")

"""What contracts say of their fields, for documents: the string that stands below a field in the source.

pydantic would read the source of every contract each time that one is imported, which takes a command longer than to
ask a server (``use_attribute_docstrings``).
"""

import ast
import inspect
from collections.abc import Iterator, Mapping, MutableMapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel


def describe(schemas: MutableMapping[str, Any], *modules: ModuleType) -> None:
    """Put them into JSON schemas, where a field has no description yet.

    Args:
        schemas: by the names of models.
        modules: that define the models.
    """
    told = {name: words for module in modules for name, words in _words(module)}
    models = {name: one for module in modules for name, one in vars(module).items() if _is_model(one)}
    for name, schema in schemas.items():
        if (model := models.get(name)) is None:
            continue
        for field, found in schema.get("properties", {}).items():
            words = next(
                (told[one.__name__][field] for one in model.__mro__ if field in told.get(one.__name__, {})), ""
            )
            if words and "description" not in found:
                found["description"] = words


def _is_model(one: object) -> bool:
    return isinstance(one, type) and issubclass(one, BaseModel)


def _words(module: ModuleType) -> Iterator[tuple[str, Mapping[str, str]]]:
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        yield (
            node.name,
            {
                field.target.id: inspect.cleandoc(text.value.value)
                for field, text in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                if isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            },
        )

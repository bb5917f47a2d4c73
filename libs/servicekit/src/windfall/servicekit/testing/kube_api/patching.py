"""The other kinds of patch: JSON merge patch (RFC 7396), JSON patch (RFC 6902) and Kubernetes' strategic merge."""

from typing import Any, Final

import jsonpatch
import jsonpointer

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.refused import Refused, bad_request
from windfall.servicekit.testing.kube_api.shapes import Shape


def merge_patched(live: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(live) if isinstance(live, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patched(result.get(name), value)
    return result


def json_patched(live: Object, patch: Any) -> Object:
    """RFC 6902.

    Raises:
        Refused: it is none, or a test in it fails, or a place that it names is not there.
    """
    if not isinstance(patch, list):
        raise bad_request("a JSON patch is a list of operations")
    try:
        result: Object = jsonpatch.apply_patch(live, patch)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(str(error)) from error
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        message = "the server rejected our request due to an error in our request"
        raise Refused(422, "Invalid", message) from error
    return result


_DIRECTIVE: Final = "$patch"


def strategically_patched(live: Any, patch: Any, shape: Shape) -> Any:
    """A merge patch in which lists with a key merge item by item, see the sig-api-machinery document
    ``strategic-merge-patch.md``."""
    if isinstance(patch, dict):
        return _patched_map(live if isinstance(live, dict) else {}, patch, shape)
    if isinstance(patch, list) and shape.list_type == "map":
        return _patched_list(live if isinstance(live, list) else [], patch, shape)
    if isinstance(patch, list) and shape.list_type == "set":
        held = live if isinstance(live, list) else []
        return held + [item for item in patch if item not in held]
    return patch


def _patched_map(live: Object, patch: Object, shape: Shape) -> Object:
    if patch.get(_DIRECTIVE) == "replace":
        return {name: value for name, value in patch.items() if name != _DIRECTIVE}
    result = dict(live)
    kept = patch.get("$retainKeys")
    if kept is not None:
        result = {name: value for name, value in result.items() if name in kept}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            result[field] = [item for item in result.get(field, []) if item not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = strategically_patched(result.get(name), value, shape.child(name))
    return result


def _patched_list(live: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    key = shape.keys[0]
    if any(item.get(_DIRECTIVE) == "replace" for item in patch):
        return [item for item in patch if _DIRECTIVE not in item]
    result = list(live)
    for item in patch:
        at = next((index for index, held in enumerate(result) if held.get(key) == item.get(key)), None)
        if item.get(_DIRECTIVE) == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(_patched_map({}, item, shape.item()))
        else:
            result[at] = _patched_map(result[at], item, shape.item())
    return result

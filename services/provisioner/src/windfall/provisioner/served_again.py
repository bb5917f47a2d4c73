"""A kind that was served, and is not for a moment: an API server that has just started tells nobody of the custom
resources that it holds until it has read their definitions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from windfall.servicekit.errors import Transient
from windfall.servicekit.kube.refusals import Unserved

_NO_NAMESPACE: Final = 'namespaces "'
"""How a server says that it is the namespace which is not there: that a person must mend."""


@contextmanager
def served_again() -> Iterator[None]:
    """For what is asked once the definitions were found to be there.

    Raises:
        Transient: the server does not know a kind of them now.
    """
    try:
        yield
    except Unserved as error:
        if _NO_NAMESPACE in str(error):
            raise
        raise Transient(f"its definitions are not served now: {error}") from error

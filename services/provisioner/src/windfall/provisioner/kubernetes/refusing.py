"""What an API server's refusal means to a lease."""

from collections.abc import Iterator
from contextlib import contextmanager

from windfall.provisioner.backend import Outage, Untried
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube import Conflict


@contextmanager
def asking(namespace: str) -> Iterator[None]:
    """
    Raises:
        Outage: nobody answered, so nothing was tried.
        Transient: it may be otherwise later.
        Mistake: a person has to mend it.
    """
    try:
        yield
    except (Untried, Conflict):
        raise
    except Transient as error:
        raise Outage(str(error), error.retry_after) from error
    except Mistake as error:
        if "exceeded quota" in error.cause:
            raise Transient(error.cause) from error
        if f'namespaces "{namespace}" not found' in error.cause:
            raise Mistake(
                f"there is no namespace {namespace}",
                "Create it, or set WINDFALL_KUBE_NAMESPACE to one that is there",
                ExitCode.RESOURCE,
            ) from error
        raise

"""torch, loaded when it is first looked at and not when a module is imported that may need it one day.

It takes longer to load than all else that a coordinator or a trainer imports. Whoever only reads settings, layouts and
headers has an answer without it: modules here that such a front imports take ``torch`` from here, and name ``Tensor``
for the type checker alone.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch as torch
else:

    class _Later:
        """Stands for the module. What was looked at once is found without a detour."""

        def __getattr__(self, name: str) -> object:
            import torch

            found = self.__dict__[name] = getattr(torch, name)
            return found

    torch = _Later()

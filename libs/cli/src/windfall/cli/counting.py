"""Numbers of things as people read them."""


def counted(count: int, what: str) -> str:
    """``1 round``, ``12,000 rounds``.

    Args:
        what: in the plural, which ends with an s.
    """
    if count != 1:
        return f"{count:,} {what}"
    return f"1 {what.removesuffix('ies')}y" if what.endswith("ies") else f"1 {_one(what)}"


def _one(what: str) -> str:
    return what.removesuffix("es") if what.endswith(("sses", "ches", "xes")) else what.removesuffix("s")

"""How long a site that has delivered waits until it may train again: what other sites' slowness costs it."""

from windfall.site_trainer.session import Session


class Barrier:
    """Watches a session change. A site that trains on meanwhile, or whose next round is open before its receipt has
    come, waits at none."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def passed(self, before: Session, after: Session, now_s: float) -> float | None:
        """Seconds that were waited, when this change ends a wait; none otherwise, and when the site leaves instead.

        Args:
            now_s: of a clock of which only differences count.
        """
        if after.left or after.stopping or after.attempt is None:
            self._since_s = None
        elif after.pushed and not before.pushed:
            self._since_s = now_s
        elif before.pushed and not after.pushed:
            since_s, self._since_s = self._since_s, None
            return None if since_s is None else now_s - since_s
        return None

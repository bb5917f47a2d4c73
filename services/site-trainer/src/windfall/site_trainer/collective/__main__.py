"""The composition root of a member."""

import logging
import os
import sys
from typing import NoReturn

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.site_trainer.collective.exchange import PeerLost
from windfall.site_trainer.collective.member import Member
from windfall.site_trainer.collective.settings import CollectiveSettings, read
from windfall.site_trainer.collective.stop import Stop, Stopped

log = logging.getLogger("windfall.site_trainer.collective")


def work(settings: CollectiveSettings) -> ExitCode:
    """Be a member until the run ends, the group breaks, or we are asked to end.

    Raises:
        Mistake: a person must mend something.
    """
    try:
        with Stop() as stop:
            try:
                Member(settings, stop, _say).run()
            except PeerLost as lost:
                log.warning("the group broke, or a member took longer than --timeout %s: %s", settings.timeout, lost)
                # The agent of a member that fell calls all others to a new rendezvous, which costs them no restart.
                # When its whole site is gone nobody calls, and ending is how our own agent learns of it.
                stop.patiently(settings.patience.total_seconds())
                return ExitCode.SERVER
    except Stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> NoReturn:
    code = ExitCode.FAILED
    try:
        settings = read(sys.argv[1:], os.environ)
        logging.basicConfig(
            level=logging.INFO, format=f"%(asctime)s %(levelname)-7s {settings.site} %(message)s", stream=sys.stderr
        )
        code = work(settings)
    except Mistake as mistake:
        sys.stderr.write(f"windfall collective: {mistake}\n")
        code = mistake.exit_code
    except SystemExit as end:
        code = ExitCode(int(end.code or 0))
    except Exception:
        log.exception("a member broke")
    finally:
        # A thread may still wait for a member that never comes, and torch would wait for the thread.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()

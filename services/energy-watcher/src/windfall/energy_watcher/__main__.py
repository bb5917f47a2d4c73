"""``python -m windfall.energy_watcher``: the watcher of one site."""

from windfall.contracts.subjects import site_streams
from windfall.energy_watcher.app import attend
from windfall.energy_watcher.settings import WatcherSettings
from windfall.servicekit.service import run

if __name__ == "__main__":
    run(
        "energy-watcher",
        WatcherSettings,
        whom=lambda settings: settings.site,
        streams=lambda settings: site_streams(settings.site),
        attend=attend,
    )

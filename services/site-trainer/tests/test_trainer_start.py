"""A trainer that starts is counted in before it has loaded what it trains with."""

import subprocess
import sys


def test_nothing_that_a_trainer_imports_before_it_joins_loads_torch() -> None:
    told = "import sys, windfall.site_trainer.__main__; print(*sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

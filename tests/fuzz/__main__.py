"""``make fuzz``: ``INPUTS=N`` in all, 100,000 where nothing is said; ``SEED=S`` makes other ones. It ends with 1 when a
parser crashes, takes too long or grows; the inputs that did it are kept then."""

import argparse
import gc
import json
import os
import sys

from tests.bench.figures import RESULTS
from tests.fuzz.run import DEADLINE_S, MOST_MIB, aside, keep
from tests.fuzz.targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=int(os.environ.get("INPUTS", "100000")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", "0")))
    parser.add_argument("--only", default="", help="parsers whose names begin so")
    asked = parser.parse_args()
    targets = [target for target in TARGETS if target.name.startswith(asked.only)]
    each, more = divmod(asked.inputs, len(targets))
    print("| parser | inputs | accepted | refused | crashes | grown MiB | slowest ms |", flush=True)
    print("| --- | --: | --: | --: | --: | --: | --: |", flush=True)
    rows, missed = list[dict[str, object]](), list[str]()
    gc.freeze()
    total = crashes = 0
    for number, target in enumerate(targets):
        found = aside(target, each + (number < more), asked.seed)
        grown, slowest = round(found.grown_mib, 1), round(found.slowest_ms, 1)
        counts = {
            "inputs": found.inputs,
            "accepted": found.accepted,
            "refused": found.refused,
            "crashes": found.crashed,
        }
        rows.append({"parser": target.name, **counts, "grown_mib": grown, "slowest_ms": slowest})
        cells = (target.name, *(f"{count:,}" for count in counts.values()), str(grown), str(slowest))
        print(f"| {' | '.join(cells)} |", flush=True)
        total, crashes = total + found.inputs, crashes + found.crashed
        missed += [f"{target.name}: {why}\n  {keep(target.name, data)}" for why, data in found.crashes]
        if found.grown_mib > MOST_MIB:
            missed.append(f"{target.name} grew by {found.grown_mib:.0f} MiB, more than {MOST_MIB:.0f}")
        if found.slowest_ms > 1000 * DEADLINE_S:
            missed.append(f"{target.name} took {found.slowest_ms:.0f} ms for an input")
    print(f"{len(rows)} parsers, {total:,} inputs, {crashes:,} crashes")
    RESULTS.mkdir(exist_ok=True)
    summary = {"inputs": total, "seed": asked.seed, "parsers": rows, "missed": missed}
    (RESULTS / "fuzz.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(*missed, sep="\n")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

"""Play seeds outside of pytest: one with its whole story, or very many.

python tests/simulation/replay.py 75                      the story of seed 75, and what it broke
python tests/simulation/replay.py 0 --count 1000000       a night's work, on all processors; prints only what broke
"""

import argparse
import logging
import multiprocessing
import sys
from pathlib import Path

if __name__ == "__main__":  # by its path: then the checkout is not where modules are looked for
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.simulation.invariants import violations
from tests.simulation.scenario import play

CHUNK = 250


def broken(seed: int) -> tuple[int, list[str]]:
    """Play a seed, and say what it broke."""
    logging.disable(logging.CRITICAL)
    return seed, violations(play(seed))


def main() -> int:
    """Play what the command line says; 1 where something is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", type=int, help="the seed, or the first one")
    parser.add_argument("--count", type=int, default=1, help="how many, from that one on")
    arguments = parser.parse_args()
    if arguments.count == 1:
        logging.disable(logging.CRITICAL)
        record = play(arguments.seed)
        found = violations(record)
        sys.stdout.write("\n".join([*record.story, "", *(found or ["every promise was kept"]), ""]))
        return 1 if found else 0
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    failed = 0
    with multiprocessing.Pool() as pool:
        for seed, found in pool.imap_unordered(broken, seeds, chunksize=CHUNK):
            failed += bool(found)
            for one in found:
                sys.stdout.write(f"seed {seed}: {one}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{failed} of {arguments.count} seeds broke a promise\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line of `make faults`."""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from local_platform.chart import OPERATOR_NAMESPACE
from local_platform.control_plane import running
from local_platform.operator_process import install
from tests.faults import __doc__ as about
from tests.faults import broken
from tests.faults.run import Options, run
from tests.faults.schedule import schedule


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=about)
    parser.add_argument("--faults", type=int, default=200, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the faults and the jobs (default: a new one, which is printed)")
    parser.add_argument("--operators", type=int, default=2, metavar="N", help="replicas (default: %(default)s)")
    parser.add_argument("--live", type=int, default=20, metavar="N", help="unfinished jobs (default: %(default)s)")
    parser.add_argument(
        "--pause", type=float, default=4.0, metavar="S", help="mean seconds between two faults (default: %(default)s)"
    )
    parser.add_argument(
        "--settle", type=float, default=420.0, metavar="S", help="for all jobs to end after it (default: %(default)s)"
    )
    parser.add_argument(
        "--break",
        dest="broken",
        choices=sorted(broken.BREAKS),
        help="run an operator that is broken in this way, to see it found",
    )
    return parser


def main() -> int:
    """Make one run in a control plane of its own; 0 if nothing was found."""
    options = _parser().parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    module = "finetune_operator"
    if options.broken:
        os.environ[broken.VARIABLE] = options.broken
        module = "tests.faults.broken"
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"seed {seed}; logs are in {folder}", flush=True)
    with running(f"f{os.getpid()}") as plane:
        installed = install(plane, folder, OPERATOR_NAMESPACE)
        setup = Options(
            seed=seed,
            faults=schedule(seed, options.faults, options.pause),
            operators=options.operators,
            live=options.live,
            settle=options.settle,
            module=module,
        )
        verdict = asyncio.run(run(installed, folder, setup, lambda line: print(line, flush=True)))
    print(f"seed={seed}")
    print(verdict)
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())

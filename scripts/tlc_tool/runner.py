"""Runs TLC once."""

import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from .inputs import TLA, mutated
from .output import read_output, short_progress

SIMULATED_DEPTH = 100       # steps of one random walk


def run_tlc(config, options, text=None, workers=None, cpu_limit=None, wall_limit=None, simulate=False, short=False,
            change=None, show=""):
    """Checks `text` (else the whole configuration) in a temporary copy of the specifications.

    `change` is (find, replace), a mutation of the specification. The limits are in seconds; a limit in CPU time does not
    care how busy the machine is. `show` is a name under which progress is printed. A `short` run is one of seconds.
    """
    with tempfile.TemporaryDirectory(prefix="walrus-tlc-") as place:
        place = pathlib.Path(place)
        for path in TLA.glob("*.tla"):
            shutil.copy(path, place)
        if change:
            spec = place / f"{config.spec}.tla"
            spec.write_text(mutated(spec.read_text(), *change, spec.name))
        (place / "check.cfg").write_text(config.text if text is None else text)
        workers = workers or options.workers
        command = tlc_command(config, options, workers, simulate, short)
        started, cpu_started = time.monotonic(), children_cpu_seconds()
        lines, timed_out = run_showing_progress(command, place, cpu_limit, wall_limit, show)
        outcome = read_output(lines)
        outcome.wall_seconds = time.monotonic() - started
        outcome.seconds = (children_cpu_seconds() - cpu_started) / workers
        outcome.timed_out = timed_out
        outcome.ok = outcome.ok and not timed_out
        if options.keep_output:
            pathlib.Path(options.keep_output).write_text("\n".join(lines))
        return outcome


def tlc_command(config, options, workers, simulate, short):
    # For a run of seconds, the better of Java's compilers costs more than it saves.
    java = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] if short else ["-XX:+UseParallelGC"]
    # -deadlock: a state without a successor is no error (bounded runs end); what must go on is said by liveness
    command = ["java", *java, f"-Xmx{options.heap}", "-cp", str(options.jar), "tlc2.TLC",
               "-config", "check.cfg", "-metadir", "states", "-deadlock", "-workers", str(workers)]
    if simulate:
        command += ["-simulate", "-depth", str(SIMULATED_DEPTH)]
    elif config.checks_liveness():
        command += ["-lncheck", "final"]        # look for endless runs once, at the end
    return command + [f"{config.spec}.tla"]


def children_cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_showing_progress(command, place, cpu_limit, wall_limit, show):
    """All lines that TLC printed, and whether it was stopped at a limit."""
    def limit_cpu():
        if cpu_limit:
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_limit), int(cpu_limit) + 5))

    started = time.monotonic()
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=limit_cpu)
    stopped = threading.Event()

    def stop():
        stopped.set()
        process.terminate()

    timer = threading.Timer(wall_limit or 0, stop)
    if wall_limit:
        timer.start()
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if show and line.startswith("Progress"):
                print(f"  {show}: {time.monotonic() - started:4.0f} s  {short_progress(line)}", flush=True)
        process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
    out_of_cpu = process.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
    return lines, out_of_cpu or stopped.is_set()

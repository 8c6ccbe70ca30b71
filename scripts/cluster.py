#!/usr/bin/env python3
"""A Walrus cluster of plain processes on this machine, for trying things out.

    cluster.py bootstrap [--nodes 3]    start it (again), and wait until it is one healthy cluster
    cluster.py status                   nodes, leases, leaders, segments
    cluster.py kill N                   SIGKILL node N, as a crash would
    cluster.py stop N                   end node N in an orderly way
    cluster.py restart N                start node N again with its data (stop it first if it runs)
    cluster.py down                     end all nodes; the data stay

Everything is below one directory (--dir, default .cluster): nodeN/data, nodeN/log, nodeN/pid.
Node N has client port 9090+N, peer port 6000+N, admin port 8090+N (--port-offset adds to all).
Node 1 begins the cluster; every other start joins the nodes that are there.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
ANSWER_TIMEOUT_S = 3
POLL_S = 0.1


class Problem(Exception):
    """What went wrong, and what to do about it: shown as it is, without a traceback."""


@dataclass(frozen=True)
class Node:
    """One node of the cluster: where its files and ports are, and its process."""

    number: int
    dir: Path
    port_offset: int

    @property
    def client_port(self) -> int:
        return 9090 + self.number + self.port_offset

    @property
    def peer_port(self) -> int:
        return 6000 + self.number + self.port_offset

    @property
    def admin_port(self) -> int:
        return 8090 + self.number + self.port_offset

    @property
    def log(self) -> Path:
        return self.dir / "log"

    @property
    def has_data(self) -> bool:
        return (self.dir / "data").is_dir()

    def pid(self) -> int | None:
        """Id of the running process, or None. A pid that was taken by something else does not count."""
        try:
            pid = int((self.dir / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if str(self.dir / "data") in command_line(pid) else None

    def signal(self, number: int) -> None:
        """Sends a signal and waits for the end of the process."""
        pid = self.pid()
        if pid is None:
            raise Problem(f"node {self.number} is not running; `make cluster-status` shows which are")
        os.kill(pid, number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.pid() is not None:
            if time.monotonic() > deadline:
                raise Problem(f"node {self.number} (process {pid}) did not end within {STOP_TIMEOUT_S} s; its log: {self.log}")
            time.sleep(POLL_S)
        (self.dir / "pid").unlink(missing_ok=True)

    def get(self, path: str) -> str:
        """The body of an admin page; an OSError if there is none (a 503 is one)."""
        with urllib.request.urlopen(f"http://{HOST}:{self.admin_port}{path}", timeout=ANSWER_TIMEOUT_S) as answer:
            return answer.read().decode()

    def status(self) -> dict | None:
        """The cluster as this node sees it, if it answers."""
        try:
            return json.loads(self.get("/status.json"))
        except (OSError, ValueError):
            return None

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "".join(f"    {line}\n" for line in lines[-8:])


def command_line(pid: int) -> str:
    """The command line of a process; empty if there is none (any more)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True).stdout


class Cluster:
    """All nodes below one directory. The ports of a cluster stay what they were at its bootstrap."""

    def __init__(self, directory: Path, port_offset: int | None, walrus: Path):
        self.dir, self.walrus = directory.resolve(), walrus
        remembered = self.dir / "port-offset"
        if port_offset is None:
            port_offset = int(remembered.read_text()) if remembered.exists() else 0
        self.port_offset = port_offset

    def remember_ports(self) -> None:
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "port-offset").write_text(f"{self.port_offset}\n")

    def node(self, number: int) -> Node:
        return Node(number, self.dir / f"node{number}", self.port_offset)

    def nodes(self) -> list[Node]:
        """The nodes that were ever started here, by number."""
        numbers = [path.name.removeprefix("node") for path in self.dir.glob("node*")]
        return [self.node(number) for number in sorted(int(text) for text in numbers if text.isdigit())]

    def existing(self, number: int) -> Node:
        known = [node.number for node in self.nodes()]
        if not known:
            raise Problem(f"there is no cluster in {self.dir}; `make cluster-bootstrap` makes one")
        if number not in known:
            raise Problem(f"there is no node {number}; there are {', '.join(map(str, known))}")
        return self.node(number)

    def start(self, node: Node) -> subprocess.Popen:
        """Starts one process. Only the very first node begins a cluster; all others join the rest."""
        check_ports(node)
        others = [other for other in self.nodes() if other.number != node.number]
        fresh_cluster = node.number == 1 and not any(other.has_data for other in others)
        join = [f"{HOST}:{other.peer_port}" for other in others if not fresh_cluster]
        node.dir.mkdir(parents=True, exist_ok=True)
        command = [
            str(self.walrus), "--node-id", str(node.number), "--data-dir", str(node.dir / "data"),
            "--client-host", HOST, "--client-port", str(node.client_port),
            "--raft-host", HOST, "--raft-port", str(node.peer_port),
            "--admin-host", HOST, "--admin-port", str(node.admin_port),
            *(["--join", ",".join(join)] if join else []),
        ]
        with open(node.log, "ab") as log:
            # A session of its own: Ctrl-C in this terminal is not meant for the cluster.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True, env={"NO_COLOR": "1", **os.environ})
        (node.dir / "pid").write_text(f"{process.pid}\n")
        return process


def check_ports(node: Node) -> None:
    """Says who holds a port that is needed, before a node fails for it."""
    for what, port in (("client", node.client_port), ("peer", node.peer_port), ("admin", node.admin_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise Problem(
                    f"the {what} port {port} of node {node.number} is taken by {holder_of(port)} ({error.strerror}).\n"
                    "End that process, or choose other ports: make cluster-bootstrap PORT_OFFSET=100"
                ) from None


def holder_of(port: int) -> str:
    """The process that listens on a port, as far as this user may know."""
    try:
        out = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True).stdout
        name, pid = out.split('users:(("')[1].split('"')[0], out.split("pid=")[1].split(",")[0]
        return f"`{name}`, process {pid}"
    except (FileNotFoundError, IndexError):
        return "another process"


def ended_early(node: Node, process: subprocess.Popen) -> None:
    if process.poll() is not None:
        (node.dir / "pid").unlink(missing_ok=True)
        raise Problem(f"node {node.number} ended at once. The end of its log ({node.log}):\n{node.log_tail()}")


def why_unhealthy(node: Node, numbers: list[int]) -> str | None:
    """What this node still misses to be part of one healthy cluster of these nodes."""
    status = node.status()
    if status is None:
        return "does not answer on its admin port"
    if status["not_ready"]:
        return status["not_ready"]
    voters = sorted(row["node_id"] for row in status["nodes"] if row["raft_role"] == "voter")
    if voters != numbers:
        return f"counts the voters {voters}, not {numbers} yet"
    silent = [row["node_id"] for row in status["nodes"] if not row["ready"]]
    return f"sees that node {silent[0]} is not ready" if silent else None


def wait_healthy(cluster: Cluster, started: dict[Node, subprocess.Popen], nodes: list[Node]) -> None:
    """Returns when every one of `nodes` sees the same cluster with all of them in it."""
    numbers = [node.number for node in cluster.nodes()]
    deadline = time.monotonic() + START_TIMEOUT_S
    for node in nodes:
        while reason := why_unhealthy(node, numbers):
            for young, process in started.items():
                ended_early(young, process)
            if time.monotonic() > deadline:
                raise Problem(f"after {START_TIMEOUT_S} s node {node.number} {reason}. The end of its log ({node.log}):\n{node.log_tail()}")
            time.sleep(POLL_S)


def bootstrap(cluster: Cluster, count: int) -> None:
    known = cluster.nodes()
    if len(known) > count:
        raise Problem(f"the cluster in {cluster.dir} has {len(known)} nodes, so NODES={count} is too few.\n"
                      f"For a fresh one: make cluster-down && rm -r {cluster.dir}")
    if not cluster.walrus.exists():
        raise Problem(f"there is no {cluster.walrus}; `make build` makes it")
    nodes = [cluster.node(number) for number in range(1, count + 1)]
    stopped = [node for node in nodes if node.pid() is None]
    for node in stopped:
        check_ports(node)
    started = {}
    cluster.remember_ports()
    for node in stopped:
        node.dir.mkdir(parents=True, exist_ok=True)
    # With data, nobody begins a new cluster, and a quorum needs several at once.
    again = any(node.has_data for node in nodes)
    for node in stopped:
        print(f"node {node.number}: {'starts again' if node.has_data else 'starts'}", flush=True)
        started[node] = cluster.start(node)
        if not again and node.number == 1:
            wait_until_serving(node, started[node])
    wait_healthy(cluster, started, nodes)
    show_status(cluster)
    print_next_steps(cluster, nodes)


def wait_until_serving(node: Node, process: subprocess.Popen) -> None:
    """The first node must have begun the cluster before the others look for one."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            node.get("/readyz")
            return
        except OSError as error:
            ended_early(node, process)
            if time.monotonic() > deadline:
                raise Problem(f"node {node.number} is not ready after {START_TIMEOUT_S} s ({error}); its log: {node.log}") from None
            time.sleep(POLL_S)


def print_next_steps(cluster: Cluster, nodes: list[Node]) -> None:
    cli = cluster.walrus.with_name("walrus-cli")
    cli = cli.relative_to(Path.cwd()) if cli.is_relative_to(Path.cwd()) else cli
    last = nodes[-1]
    print(f"""
One healthy cluster. What next?
  {cli} --addr {HOST}:{nodes[0].client_port} register logs
  {cli} --addr {HOST}:{nodes[0].client_port} put logs "hello world"      # any node takes any request
  {cli} --addr {HOST}:{last.client_port} get logs
  make cluster-kill N=1       # then read and write on: --addr {HOST}:{last.client_port}
  make cluster-restart N=1
  make cluster-down           # the data stay in {cluster.dir}
Status page: http://{HOST}:{nodes[0].admin_port}/""")


def restart(cluster: Cluster, number: int) -> None:
    node = cluster.existing(number)
    if node.pid() is not None:
        node.signal(signal.SIGTERM)
    process = cluster.start(node)
    running = [other for other in cluster.nodes() if other == node or other.pid() is not None]
    if 2 * len(running) <= len(cluster.nodes()):
        print(f"node {number} runs; the cluster works again once {len(cluster.nodes()) // 2 + 1} nodes do")
        while node.status() is None:
            ended_early(node, process)
            time.sleep(POLL_S)
        return
    deadline = time.monotonic() + START_TIMEOUT_S
    while (status := node.status()) is None or status["not_ready"]:
        ended_early(node, process)
        if time.monotonic() > deadline:
            reason = status["not_ready"] if status else "does not answer"
            raise Problem(f"after {START_TIMEOUT_S} s node {number}: {reason}. The end of its log ({node.log}):\n{node.log_tail()}")
        time.sleep(POLL_S)
    show_status(cluster)


def down(cluster: Cluster) -> None:
    running = [(node, pid) for node in cluster.nodes() if (pid := node.pid()) is not None]
    if not running:
        print("no node is running")
    # All at once: a node that goes alone would first hand its work to those that go next.
    for _, pid in running:
        os.kill(pid, signal.SIGTERM)
    for node, _ in running:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while node.pid() is not None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if node.pid() is not None:
            print(f"node {node.number} did not end within {STOP_TIMEOUT_S} s and is killed")
            node.signal(signal.SIGKILL)
        (node.dir / "pid").unlink(missing_ok=True)
        print(f"node {node.number}: stopped")


def show_status(cluster: Cluster) -> None:
    nodes = cluster.nodes()
    if not nodes:
        raise Problem(f"there is no cluster in {cluster.dir}; `make cluster-bootstrap` makes one")
    pids = {node.number: node.pid() for node in nodes}
    statuses = [status for node in nodes if pids[node.number] and (status := node.status())]
    # A node that takes requests knows more than one that does not.
    status = min(statuses, key=lambda status: status["not_ready"] is not None, default=None)
    rows = [("node", "process", "state", "raft", "lease left", "leads", "segments", "behind", "client", "status page")]
    known = {row["node_id"]: row for row in status["nodes"]} if status else {}
    for node in nodes:
        row = known.get(node.number, {})
        if pids[node.number] is None:
            # What it said last is older than its end.
            row = {**row, "reachable": False, "lease_left_ms": None, "applied": None}
        rows.append((str(node.number), str(pids[node.number] or "–"), state_of(pids[node.number], row), raft_of(status, row),
                     milliseconds(row.get("lease_left_ms")), str(row.get("leads", "–")), str(row.get("segments", "–")),
                     behind(status, row), f"{HOST}:{node.client_port}", f"http://{HOST}:{node.admin_port}/"))
    print_table(rows)
    if status is None:
        print("\nno node answers" + ("; `make cluster-bootstrap` starts them again" if not any(pids.values()) else ""))
        return
    loss = f", {status['possible_losses']} with possible loss" if status["possible_losses"] else ""
    loss += f", {status['under_replicated']} lack copies" if status["under_replicated"] else ""
    trouble = f"; not ready: {status['not_ready']}" if status["not_ready"] else ""
    print(f"\n{counted(status['topics_total'], 'topic')}, {counted(status['segments_total'], 'segment')}{loss}; as node {status['node_id']} sees it{trouble}")


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def state_of(pid: int | None, row: dict) -> str:
    if pid is None:
        return "down"
    if not row.get("reachable"):
        return "no answer"
    return "ready" if row["ready"] else "not ready"


def raft_of(status: dict | None, row: dict) -> str:
    if status and row and row["node_id"] == status["raft"]["leader"]:
        return "leader"
    return row.get("raft_role") or "–"


def milliseconds(value: int | None) -> str:
    return "–" if value is None else f"{value} ms"


def behind(status: dict | None, row: dict) -> str:
    """Metadata changes that the node has not applied yet."""
    if status is None or row.get("applied") is None or status["raft"]["last_applied"] is None:
        return "–"
    return str(max(0, status["raft"]["last_applied"] - row["applied"]))


def print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=root / ".cluster")
    parser.add_argument("--port-offset", type=int, help="added to every port; remembered, at first 0")
    parser.add_argument("--walrus", type=Path, default=root / "target/release/walrus", help="the server to run")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("bootstrap").add_argument("--nodes", type=int, default=3)
    for name in ("status", "down"):
        commands.add_parser(name)
    for name in ("kill", "stop", "restart"):
        commands.add_parser(name).add_argument("number", type=int, metavar="N", help="a node's number, from 1")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.dir, arguments.port_offset, arguments.walrus.resolve())
    try:
        match arguments.command:
            case "bootstrap" if arguments.nodes < 1:
                raise Problem("NODES must be at least 1")
            case "bootstrap":
                bootstrap(cluster, arguments.nodes)
            case "status":
                show_status(cluster)
            case "kill":
                cluster.existing(arguments.number).signal(signal.SIGKILL)
                print(f"node {arguments.number}: killed; `make cluster-restart N={arguments.number}` starts it again")
            case "stop":
                cluster.existing(arguments.number).signal(signal.SIGTERM)
                print(f"node {arguments.number}: stopped; `make cluster-restart N={arguments.number}` starts it again")
            case "restart":
                restart(cluster, arguments.number)
            case "down":
                down(cluster)
    except Problem as problem:
        print(f"cluster: {problem}", file=sys.stderr)
        running = [str(node.number) for node in cluster.nodes() if node.pid() is not None]
        if arguments.command == "bootstrap" and running:
            print(f"Still running: node {', '.join(running)}; `make cluster-down` ends them.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

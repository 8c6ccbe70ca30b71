#!/usr/bin/env bash
# Checks what the benchmark needs beside Rust, and installs what is missing where it may (as root,
# with apt). Elsewhere it prints the one command to type. `SYSTEMS=walrus,kafka` needs less.
set -euo pipefail

systems=${SYSTEMS:-all}
needs() { [[ $systems == all || ",$systems," == *",$1,"* ]]; }

if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing. Install Rust from https://rustup.rs and run this again." >&2
    exit 1
fi

packages=()
can_wait=true # everything can be built; a system that cannot run is told by the harness
want() { # want COMMAND PACKAGE…
    local command=$1
    shift
    command -v "$command" >/dev/null && return
    packages+=("$@")
    [[ $command == javac || $command == mvn ]] || can_wait=false
}
want cc gcc libc6-dev
want make make
if needs kafka || needs kafka-java || needs all; then
    want g++ g++
    want javac openjdk-17-jdk-headless
    want mvn maven
fi
if needs rocksdb || needs all; then
    want g++ g++
    want clang clang libclang-dev
    # The binding generator loads libclang itself.
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null \
        || { packages+=(libclang-dev) && can_wait=false; }
fi

if [ ${#packages[@]} -eq 0 ]; then
    exit 0
fi
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "setup: installing ${packages[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${packages[@]}" >/dev/null
else
    echo "setup: some tools are missing. Type this, then run make again:" >&2
    echo "    sudo apt-get install -y ${packages[*]}" >&2
    $can_wait || exit 1
    echo "setup: going on without Kafka" >&2
fi

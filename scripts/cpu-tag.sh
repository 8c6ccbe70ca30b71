#!/bin/sh
# Prints a short tag of this CPU's features. Build outputs made for the native CPU live in a folder
# with this tag in its name, so that a cache moved to another machine is not used there.
if [ -r /proc/cpuinfo ]; then
    grep -m1 -E '^(flags|Features)' /proc/cpuinfo
else
    sysctl -n machdep.cpu.features machdep.cpu.leaf7_features 2>/dev/null || uname -m
fi | tr ' ' '\n' | sort | { md5sum 2>/dev/null || md5; } | cut -c1-10

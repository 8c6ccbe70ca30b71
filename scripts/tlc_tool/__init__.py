"""The parts of scripts/tlc.py: where TLC comes from, what it is given, what it said, and what is written down."""


class Problem(Exception):
    """Something that the user has to hear about; ends the program with status 1."""


class Missing(Problem):
    """There is no Java, or no TLC, on this machine."""

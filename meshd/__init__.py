"""meshd: the daemon that holds one user's agents on one machine."""

__version__ = "0.2.0"

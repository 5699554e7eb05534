"""What stands on this machine's disk. Everything here blocks: the runner calls it from a thread."""

"""What runs without the daemon: one file for each command. Empty, since the quick ones pay for it."""

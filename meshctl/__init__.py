"""meshctl: the client. A pipe to the daemon that costs what starting an interpreter costs."""

"""What the operating system gives one process, and who is at the other end of a socket."""

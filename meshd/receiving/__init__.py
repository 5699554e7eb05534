"""One agent's mail: read from the store, put on the disk, told, and handed over."""

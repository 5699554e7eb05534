"""Redis and Valkey: the only place that imports redis."""

"""All scenarios, by what breaks. Each module adds its own to the list."""

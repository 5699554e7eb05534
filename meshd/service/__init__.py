"""The daemon as a service: what it tells the manager that runs it, and what it asks of it."""

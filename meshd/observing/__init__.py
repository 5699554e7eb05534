"""What happens and how the daemon is, for whoever looks: events, outages, numbers."""

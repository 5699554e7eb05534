"""doctor, status, logs and events on broken installations, each broken for real; and a log that is not flooded."""

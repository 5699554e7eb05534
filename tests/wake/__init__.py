"""How a session is woken and told: real daemons, real shims, real hooks; only the client is played."""

"""What a new user does, in a new Debian that is booted for it: systemd as PID 1, logind, PAM, logout and reboot."""

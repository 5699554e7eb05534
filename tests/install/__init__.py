"""`meshctl install` and `uninstall`: on files as users have them, and on what may be in their place."""

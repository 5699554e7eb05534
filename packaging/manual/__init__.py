"""The manual pages: prose beside what the command table, the settings and the errors say themselves."""

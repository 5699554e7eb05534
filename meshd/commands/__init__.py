"""The commands: one table, one small handler each.

A command is read end to end in one place: its parameters (a struct, from which the socket's parameters, the
command line and the help are made), what it does, and how its result looks as text.
"""

"""The three pages."""

from __future__ import annotations

from manual import prose
from manual.roff import Page, bold, italic
from meshd import __version__
from meshd.commands.arguments import HELP, JSON, Argument, arguments, described_fields
from meshd.commands.base import Command
from meshd.commands.table import SHOWN
from meshd.settings import ENVIRONMENT_ONLY, Settings

_KINDS = {str: "text", int: "number", bool: "true or false"}
# What `meshd --help` tells too: its parser lives in a module that needs more than a build has.
MESHD_OPTIONS = {
    "--log-file FILE": "write the log to *FILE*, with three old ones of 1 MiB kept; without it, to standard error, and "
    "under launchd to where `meshctl logs` looks",
    "--log-level LEVEL": "`debug`, `info`, `warning` or `error`; default `info`",
    "--ready-fd FD": "write `ready` to this file descriptor once the socket listens, or why it does not",
    "--version": "print the version",
    "--help": "print the usage",
}


def meshctl() -> Page:
    page = Page("meshctl", 1, "messages between coding agents", __version__)
    page.heading("SYNOPSIS")
    page.synopsis(f"{bold('meshctl')} {italic('COMMAND')} [{italic('ARGUMENT')} ...] [{bold('--json')}]")
    page.synopsis(f"{bold('meshctl')} {italic('COMMAND')} {bold('--help')}")
    page.heading("DESCRIPTION")
    page.paragraph(
        "Coding agents, scripts and people send each other messages, ask and wait for the answer, see who is there, "
        "and are told when mail comes. `meshctl` hands its arguments to the daemon, `meshd`(8), which it starts if it "
        "does not run, and writes what comes back. `agent-mesh` is the same program."
    )
    page.paragraph(
        "The name of an agent is 1 to 64 characters of `A-Z a-z 0-9 _ -`. As a *MESSAGE* or *TEXT*, `-` reads standard "
        "input; put `--` before one that begins with a dash. Data is written to standard output, all other words to "
        "standard error. A message counts as read only after it was written out."
    )
    page.heading("COMMANDS")
    page.paragraph("Every command takes these:")
    for argument in (JSON, HELP):
        page.item(_flags(argument), argument.help)
    for name, command in SHOWN.items():
        _add_command(page, name, command)
    prose.add_exit_codes(page)
    prose.add_environment(page)
    prose.add_files(page)
    page.heading("EXAMPLES")
    page.paragraph("Two terminals, one machine, no configuration:")
    page.example("meshctl register bob --role reviewer", "meshctl send bob 'the build is green' --from alice")
    page.example("meshctl inbox bob")
    page.paragraph("A question and its answer:")
    page.example("meshctl request bob 'which branch?' --from alice --timeout 60")
    page.paragraph("A message that must be answered within a minute, or a watchdog hears of it:")
    page.example("meshctl send bob 'please review' --from alice --expect-reply --within 60")
    page.paragraph("What is wrong, and what to type next:")
    page.example("meshctl doctor")
    page.see_also(("meshd", 8), ("agent-mesh.toml", 5))
    return page


def _add_command(page: Page, name: str, command: Command) -> None:
    taken = arguments(command)
    page.subheading(name)
    usage = [bold(f"meshctl {name}"), *map(_usage, taken)]
    page.synopsis(" ".join(usage))
    page.paragraph(f"{command.help[:1].upper()}{command.help[1:]}.")
    for argument in taken:
        page.item(_flags(argument) if argument.flags else italic(argument.metavar), argument.help)
    page.paragraph("Example:")
    page.example(command.example)


def _usage(argument: Argument) -> str:
    if not argument.flags:
        return italic(argument.metavar) if argument.required else f"[{italic(argument.metavar)}]"
    value = f"\\ {italic(argument.metavar)}" if argument.takes_value else ""
    return f"[{bold(argument.flags[-1])}{value}]"


def _flags(argument: Argument) -> str:
    value = f" {italic(argument.metavar)}" if argument.takes_value else ""
    return ", ".join(f"{bold(flag)}{value}" for flag in argument.flags)


def meshd() -> Page:
    page = Page("meshd", 8, "the daemon of agent-mesh", __version__)
    page.heading("SYNOPSIS")
    page.synopsis(
        f"{bold('meshd')} [{bold('--log-file')}\\ {italic('FILE')}] [{bold('--log-level')}\\ {italic('LEVEL')}] "
        f"[{bold('--ready-fd')}\\ {italic('FD')}]"
    )
    page.heading("DESCRIPTION")
    page.paragraph(
        "One `meshd` for each user and machine receives the mail of the agents that are registered there. It writes "
        "each message to a journal on the disk, synced, before it tells anybody of it; counts what was lost; reminds "
        "of answers that are owed; and wakes sessions that wait. It needs no privileges, and is nobody else's: it "
        "listens on a Unix socket that only its user and root may open."
    )
    page.paragraph(
        "The messages are kept in a store: a private Valkey that the daemon brings, starts and stops, or the Redis or "
        "Valkey that `redis_url` names, which then joins all machines that use it. While the store is out of reach the "
        "daemon stays up, says so, and catches up by itself."
    )
    page.paragraph(
        "Nobody needs to start it: `meshctl`(1) does. As a service of the user it is there from the login on, and is "
        "started again when it fails."
    )
    page.heading("OPTIONS")
    for option, what in MESHD_OPTIONS.items():
        flag, _, value = option.partition(" ")
        page.item(f"{bold(flag)} {italic(value)}".rstrip() if value else bold(flag), what)
    page.heading("SIGNALS")
    page.item(f"{bold('SIGTERM')}, {bold('SIGINT')}", "Stop: calls end, leases are given up, the store is synced.")
    page.item(bold("SIGHUP"), "Read the configuration again, as `meshctl reload` does. An error keeps the old one.")
    page.heading("EXIT STATUS")
    page.item(bold("0"), "stopped as asked, or another daemon runs already", width=5)
    page.item(bold("1"), "something failed that should not have; the log tells", width=5)
    page.item(bold("64"), "wrong arguments", width=5)
    page.item(bold("78"), "wrong configuration: starting it again would end the same way", width=5)
    prose.add_environment(page)
    prose.add_files(page)
    page.heading("EXAMPLES")
    page.paragraph("In the foreground, with its log on the terminal:")
    page.example("meshd --log-level debug")
    page.paragraph("How it is, what is wrong, and its log:")
    page.example("meshctl status", "meshctl doctor", "meshctl logs --follow")
    page.see_also(("meshctl", 1), ("agent-mesh.toml", 5))
    return page


def configuration() -> Page:
    page = Page("agent-mesh.toml", 5, "the configuration of agent-mesh", __version__)
    page.heading("SYNOPSIS")
    page.synopsis(bold("~/.config/agent-mesh/config.toml"))
    page.heading("DESCRIPTION")
    page.paragraph(
        "No configuration is needed. The file is TOML, with the keys below and no tables. For each key there is a "
        "variable, `AGENT_MESH_` and the key in capitals, which wins over the file. A key that is not known is an "
        "error that names it."
    )
    page.paragraph(
        "`meshctl reload`, or SIGHUP, makes the daemon read the file again; an error keeps what was read before. "
        "`redis_url`, `redis_url_file` and `prefix` change with a restart only."
    )
    page.heading("KEYS")
    for field, kind, meta in described_fields(Settings):
        default = "not set" if field.default is None else bold(prose.shown(field.default))
        page.item(f"{bold(field.name)} ({_KINDS[kind]}, default: {default})", prose.with_urls(meta.description or ""))
    page.heading("ENVIRONMENT")
    page.paragraph("These cannot stand in the file; they are read by programs that do not read it:")
    for name, what in ENVIRONMENT_ONLY.items():
        page.item(bold(prose.variable(name)), what)
    page.heading("EXAMPLES")
    page.paragraph("A store that several machines share, its password in a file of its own:")
    page.example('redis_url_file = "~/.config/agent-mesh/redis-url"', "gate_enforce = true")
    page.see_also(("meshctl", 1), ("meshd", 8))
    return page

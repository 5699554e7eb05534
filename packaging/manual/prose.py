"""What several pages say: exit codes, variables, files."""

from __future__ import annotations

import re

from manual.roff import Page, bold
from meshd.commands.arguments import described_fields
from meshd.settings import ENVIRONMENT_ONLY, Settings

EXIT_CODES = {
    0: "all is well",
    1: "a negative outcome: nobody answered in time, a message was denied, doctor has found an error",
    2: "wrong usage; nothing has happened",
    3: "the daemon is not running and was not started",
    4: "the store is out of reach, this agent's mail cannot be had now, or the outcome is unknown: the message may "
    "have been sent, and is not sent twice if the same id is given again",
    5: "no such agent or message",
    7: "not allowed: another daemon holds the name, or the socket is another user's",
    78: "the configuration is wrong",
}

FILES = {
    "~/.config/agent-mesh/config.toml": "the configuration; see `agent-mesh.toml`(5)",
    "$XDG_RUNTIME_DIR/agent-mesh/meshd.sock": "the control socket: JSON-RPC 2.0, one line each",
    "~/.cache/agent-mesh/notify-NAME.log": "the notify log of an agent: a line for each thing that has come",
    "~/.local/state/agent-mesh/agents/": "what is unread and what is owed, of each agent",
    "~/.local/state/agent-mesh/store/": "the data of the embedded store",
    "~/.local/state/agent-mesh/meshd.log": "the log of a daemon that a command has started",
}


def add_exit_codes(page: Page) -> None:
    page.heading("EXIT STATUS")
    for code, what in EXIT_CODES.items():
        page.item(bold(str(code)), what, width=5)


def add_environment(page: Page) -> None:
    page.heading("ENVIRONMENT")
    page.paragraph(
        "A variable wins over the configuration file. The daemon reads them when it starts, from the environment of "
        "whoever starts it."
    )
    for field, _, meta in described_fields(Settings):
        default = f"; default `{shown(field.default)}`" if field.default not in (None, False) else ""
        page.item(bold(variable(field.name)), f"{with_urls(meta.description or '')}{default}")
    for name, what in ENVIRONMENT_ONLY.items():
        page.item(bold(variable(name)), f"{what} (not in the file)")


def add_files(page: Page) -> None:
    page.heading("FILES")
    page.paragraph(
        "As they are on Linux where nothing else is set; `meshctl path` tells where they are. Folders have the mode "
        "0700, files 0600."
    )
    for name, what in FILES.items():
        page.item(bold(name), what)


def variable(key: str) -> str:
    return f"AGENT_MESH_{key.upper()}"


def shown(value: object) -> str:
    """A setting's value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def with_urls(text: str) -> str:
    """Prose whose URLs stand out."""
    return re.sub(r"\S+://[^\s,;]*(?:,[^\s,;]+)*", r"`\g<0>`", text)

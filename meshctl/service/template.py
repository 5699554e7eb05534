"""The files that are shipped for service managers, as they are before this installation's paths are put in."""

from __future__ import annotations

import os

from meshctl.install.files import NotChanged, read


def shipped(name: str) -> bytes:
    """The file of that name, as in `systemd/meshd.service`. Raises `NotChanged` if this installation has it not."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # In a wheel within the package; an editable installation has them where the source is.
    for parent in (here, os.path.join(os.path.dirname(here), "packaging")):
        data = read(os.path.join(parent, name))
        if data is not None:
            return data
    raise NotChanged(f"the file {name} is missing in this installation", "install agent-mesh again")

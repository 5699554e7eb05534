"""Puts manual pages and completions into the wheel, below `share`, and into the sdist.

A hook of hatchling: https://hatch.pypa.io/latest/plugins/build-hook/reference/. They are generated outside of the
source tree, which a build leaves as it was.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Found by its base class; there is one for each target that is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # would be out of date with the next edit
            return
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        # Another process: this one has other packages loaded, and other folders on its path.
        subprocess.run([sys.executable, "packaging/generate.py", folder], cwd=self.root, check=True)
        files = {str(path): f"share/{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_file()}
        build_data["shared_data" if self.target_name == "wheel" else "force_include"].update(files)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()

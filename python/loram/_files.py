"""Files that are complete or not there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def replace_file(path: str, write: Callable[[str], None]) -> None:
    """Writes a file under a temporary name in the same folder and puts it in place."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".loram-")
    os.close(handle)
    try:
        write(temporary)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def replace_json(path: str, value: dict[str, Any]) -> None:
    """Writes JSON as the program and PEFT do: two spaces, sorted where the caller sorted."""

    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8") as f:
            json.dump(value, f, indent=2)
            f.write("\n")

    replace_file(path, write)

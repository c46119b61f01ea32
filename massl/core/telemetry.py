"""Switches off what libraries report to their makers. `import massl` does it, so that it comes before any of them."""

from __future__ import annotations

import os
import sys

SWITCHES = {
    # ONNX Runtime writes a device id and a queue of events below HOME, and sends them. It reads this once, while it is
    # loaded: its own function comes too late, and "0" is the same as nothing.
    "ORT_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",  # events, and a question for the newest version
    "HF_HUB_DISABLE_TELEMETRY": "1",  # of the hub's client, which Gradio and timm bring along
    "MLFLOW_DISABLE_TELEMETRY": "true",  # sent also where the runs stay in a file on this machine
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",  # crash reports
}

# OpenVINO reports each import to its makers and keeps an id and a count below HOME, without asking and with no variable
# against it. It does so by a package of its own, and does without where that can't be imported.
BLOCKED = "openvino_telemetry"


def switch_off() -> None:
    """Sets each library's own variable, whatever it was before, and keeps `BLOCKED` from being imported.

    Child processes inherit the variables, and block the package as soon as they import anything of ours.
    """
    os.environ.update(SWITCHES)
    sys.modules[BLOCKED] = None  # type: ignore[assignment]  # as the import system has it for what is not there

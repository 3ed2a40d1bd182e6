"""Libraries that report to their makers unless they are told not to."""

import os


HUB = "HF_HUB_DISABLE_TELEMETRY"
# What turns reports off, for the libraries that this project uses or suggests.
SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime, whose native library reads it when it is loaded
    HUB: "1",  # huggingface_hub, and what TRL, Gradio and trackio send by it
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets, at each data set of the hub
    "GRADIO_ANALYTICS_ENABLED": "False",
    "WANDB_ERROR_REPORTING": "false",
    "RAY_USAGE_STATS_ENABLED": "0",  # behind an executor of datatrove
}


def stop_reports() -> None:
    """Turn the reports of libraries off that are not loaded yet. A variable that the user has set stays as it is."""
    for variable, off in SWITCHES.items():
        os.environ.setdefault(variable, off)


def stop_hub_reports() -> None:
    """Do the same for huggingface_hub, which reads its variable once and may have been imported before this package.

    For what sends reports by it: each trainer of TRL does when it is made.
    """
    import huggingface_hub.constants

    if os.environ.get(HUB) == SWITCHES[HUB]:
        huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True

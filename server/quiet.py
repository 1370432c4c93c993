"""Environment of everything we start: nothing phones home, nothing is installed at run time."""

from __future__ import annotations

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Named, so that Ray does not ask a cloud's metadata server whether this machine has TPUs.
    "TPU_ACCELERATOR_TYPE": "none",
    "TPU_NAME": "none",
    "TPU_WORKER_ID": "0",
    "HF_HUB_OFFLINE": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}

"""Which GPUs a worker's trials use."""

import os
import shutil
import subprocess


def environment(worker: int, num_workers: int) -> dict[str, str]:
    """Returns the environment variables that give a worker its part of this machine's GPUs.

    Workers get GPUs of their own where there are enough; else they share them, and each may reserve
    its part of the memory only. Variables that the user has set stay as they are.
    """
    if num_workers == 1 or not (gpus := _visible_gpus()):
        return {}
    if num_workers <= len(gpus):
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[worker::num_workers])}
    sharing = -(-num_workers // len(gpus))
    variables = {"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]}
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / sharing:.2f}"
    return variables


def _visible_gpus() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not shutil.which("nvidia-smi"):
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i, _ in enumerate(x for x in listed.stdout.splitlines() if x[:3] == "GPU")]

"""The device and the CUDA toolkit of this machine."""
import os
import re
import shutil
import subprocess

OLDEST_NVCC = (12, 8)  # cmake/cuda.cmake


class Missing(Exception):
    """There is no device, or no compiler for it: one sentence."""


def output_of(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def find_tool(name):
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    return shutil.which(name) or next(
        (f"{home}/bin/{name}" for home in homes if home and os.access(f"{home}/bin/{name}", os.X_OK)), None)


def find_device():
    """The first device, by nvidia-smi."""
    fields = ("name", "driver_version", "compute_cap", "memory.total")
    said = output_of(["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader"])
    values = [value.strip() for value in said.splitlines()[0].split(",")] if said else []
    if len(values) != len(fields):
        raise Missing("expected an NVIDIA device, but nvidia-smi lists none on this machine; run `make gpu` where "
                      "there is one, or rehearse it with experiments/device/gpu.py --rehearse build/bin --out DIR")
    return dict(zip(fields, values))


def find_toolkit():
    nvcc = find_tool("nvcc")
    found = re.search(r"release (\d+)\.(\d+)", output_of([nvcc, "--version"]) if nvcc else "")
    version = tuple(map(int, found.groups())) if found else None
    if version is None or version < OLDEST_NVCC:
        has = "none was found" if version is None else "this is {}.{}".format(*version)
        raise Missing("expected nvcc {}.{} or later, but {}; install the CUDA toolkit, or set CUDA_HOME".format(
            *OLDEST_NVCC, has))
    return nvcc, "{}.{}".format(*version)


def architecture(compute_capability):
    """What CMAKE_CUDA_ARCHITECTURES calls a device: 9.0 and later have instructions of their own, "a"."""
    major, minor = map(int, compute_capability.split("."))
    return f"{major}{minor}{'a' if major >= 9 else ''}-real"

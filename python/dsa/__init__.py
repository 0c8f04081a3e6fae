"""Is this DeepSeek Sparse Attention right?

  dsa.reference   the definition in fp64, op by op, and the error that a kernel may make
  dsa.testing     assert_close, assert_selection and cases for a pytest of your kernels
  dsa.verify      the judge: a checkpoint's logits, traces and gradients against the definition
  dsa.trace       dump hooks for torch, JAX and llama.cpp
  dsa.Model       logits and text of a checkpoint, by the CPU backend

docs/python.md tells them by examples. Errors are dsa.Error.
"""
import importlib

from dsa._errors import Error

_ROOMS = ("reference", "testing", "trace", "verify")

__all__ = ["Error", "Model", "reference", "testing", "trace", "verify"]


def __getattr__(name):
    """Rooms are imported when they are used: the dump hooks work without the compiled half."""
    if name in _ROOMS:
        return importlib.import_module(f"dsa.{name}")
    if name == "Model":
        return importlib.import_module("dsa.model").Model
    if name == "__version__":
        return importlib.import_module("dsa._core").build()["version"]
    raise AttributeError(f"module dsa has no attribute {name}")

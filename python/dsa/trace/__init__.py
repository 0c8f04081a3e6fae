"""Dump hooks: a trace of a running model for `dsa-verify localise` and `golden` (docs/dumping.md).

  with dsa.trace(model) as trace:     # a torch module; of others see dsa.trace.jax and dsa.trace.llama_cpp
      model(tokens)                   # one sequence
  dsa.verify.localise("checkpoint", {"tokens": tokens, **trace.trace})
"""
import sys
import types

from dsa._errors import require


class _Callable(types.ModuleType):
    """The package is its own shortest name: dsa.trace(model)."""

    def __call__(self, model, names=""):
        """dsa.trace.torch.Dump(model, names): `names` is a regular expression that names must match."""
        require(callable(getattr(model, "named_modules", None)),
                f"{type(model).__name__} is no torch module; dsa.trace.jax has taps for JAX")
        from dsa.trace.torch import Dump
        return Dump(model, names)


sys.modules[__name__].__class__ = _Callable

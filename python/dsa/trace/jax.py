#!/usr/bin/env python3
"""A trace of JAX code for `dsa-verify localise`, from inside jit, scan and remat.

  from dsa.trace.jax import Dump
  dump = Dump()

  def layer(x, i):                                     # anywhere in the model, jitted or not
      x = dump.tap("decoder/dense_layers_{layer}/mlp", mlp(x), layer=i)
      return x

  model(params, tokens)                                # a batch of one sequence
  dump.save("mine.safetensors", tokens)                # dsa-verify localise ... --names maxtext

tap(name, x) gives x back and keeps a copy; {layer} in a name is filled in at run time, so that it
may be a traced number (the counter of a scan over layers). verify/names/maxtext.txt has the names
that --names maxtext knows. A function that runs again (remat in a backward pass) overwrites what it
kept with the same values. Under vmap a tap sees one element a call: tap outside of it.
"""
import functools
import os

import jax
import numpy as np
from safetensors.numpy import save_file


class Dump:
    def __init__(self):
        self.trace = {}

    def tap(self, name, x, layer=None):
        """x, kept under `name` when the program runs."""
        if layer is None:
            jax.debug.callback(functools.partial(self._keep, name), x)
        else:
            jax.debug.callback(functools.partial(self._keep, name), x, layer)
        return x

    def _keep(self, name, x, layer=None):
        x = np.asarray(x)
        if x.dtype == bool:
            x = x.astype(np.uint8)
        elif x.dtype.itemsize < 4 and not np.issubdtype(x.dtype, np.integer):  # bf16, f16: exact in fp32
            x = x.astype(np.float32)
        self.trace[name if layer is None else name.format(layer=int(layer))] = np.ascontiguousarray(x)

    def save(self, path, tokens, mask=None):
        """Waits for what still runs, and writes the trace with the tokens, (S) or (1, S)."""
        jax.effects_barrier()
        given = {"tokens": np.atleast_2d(np.asarray(tokens)).astype(np.int64)}
        if given["tokens"].shape[0] != 1:
            raise SystemExit(f"a trace is of one sequence, and tokens hold {given['tokens'].shape[0]}; run one at a time")
        if mask is not None:
            given["attention_mask"] = np.atleast_2d(np.asarray(mask)).astype(np.int64)
        save_file({**given, **self.trace}, str(path) + ".partial")
        os.replace(str(path) + ".partial", path)

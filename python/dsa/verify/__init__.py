"""The judge: a checkpoint's logits, traces and gradients against the definition.

These functions run dsa-verify, which the package ships if it was built with it, and which is otherwise looked for on
PATH. The verdict is the program's own, so that a notebook and a CI job cannot disagree, and a checkpoint that takes all
memory ends the program, not the interpreter. Bad input is dsa.Error with the program's sentence.

  import dsa
  with dsa.trace(model) as trace:
      logits = model(tokens).logits
  dsa.verify.golden("checkpoint", "golden.safetensors", candidate=logits, precision="hf-bf16")
"""
from dsa.verify._judge import Verdict, diagnose, golden, gradients, localise

__all__ = ["Verdict", "diagnose", "golden", "gradients", "localise"]

"""Tools for users of torch, JAX and llama.cpp; the programs do not need them."""

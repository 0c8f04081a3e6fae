"""Arrays of numpy, torch and JAX as exact float64 or int64 arrays of numpy, and as stored bytes.

Every format here is a subset of float64, so widening is exact; nothing is ever narrowed. torch and JAX are not
imported: their arrays are known by what they offer.
"""
import numbers

import numpy as np

from dsa import _core
from dsa._errors import Error, require

# numpy's, torch's and ml_dtypes' names of a type -> its name in safetensors, and numpy's type of the same width.
_STORED = {
    "float64": ("F64", "f8"), "float32": ("F32", "f4"), "float16": ("F16", "f2"), "bfloat16": ("BF16", "u2"),
    "float8_e4m3fn": ("F8_E4M3", "u1"), "int64": ("I64", "i8"), "int32": ("I32", "i4"), "int16": ("I16", "i2"),
    "int8": ("I8", "i1"), "uint8": ("U8", "u1"), "uint16": ("U16", "u2"), "uint32": ("U32", "u4"),
    "uint64": ("U64", "u8"),
}
_EXPONENTS = "float8_e8m0fnu"
_LARGEST_EXACT = 2**53
_KNOWN = ", ".join([*_STORED, _EXPONENTS])


def is_torch(x):
    """Whether x is a tensor of torch, without importing it."""
    return type(x).__module__.split(".")[0] == "torch" and hasattr(x, "requires_grad")


def _of_torch(name, x):
    """A tensor's bits as an array of numpy, and the name of its type. CUDA tensors are copied."""
    require(not x.requires_grad, f"{name} requires grad, which would be lost here; pass {name}.detach(), or "
                                 "dsa.reference's *_backward for gradients")
    require(x.layout.__str__() == "torch.strided", f"{name} is {x.layout}, expected a dense tensor")
    dtype = str(x.dtype).removeprefix("torch.")
    x = x.detach().cpu().contiguous()
    if dtype in ("bfloat16", "float8_e4m3fn", _EXPONENTS):
        import torch  # the caller has it
        x = x.view(torch.int16 if dtype == "bfloat16" else torch.uint8)
    x = x.numpy()
    return (x.astype(np.uint8), "uint8") if dtype == "bool" else (x, dtype)


def _bits(name, x):
    """An array's numbers or bits, contiguous, and the name of their type."""
    if is_torch(x):
        return _of_torch(name, x)
    try:
        if not isinstance(x, (np.ndarray, np.generic)) and hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
            x = np.from_dlpack(x)
        x = np.asarray(x)
    except Exception as reason:
        raise Error(f"{name} is {type(x).__name__}, expected an array of numbers: {reason}") from None
    if x.dtype.name == "bool":
        x = x.astype(np.uint8)
    return np.ascontiguousarray(x).reshape(x.shape), x.dtype.name


def stored(name, x):
    """(type as safetensors names it, its bytes as uint8 (n), shape), of any array of numbers."""
    bits, dtype = _bits(name, x)
    require(dtype in _STORED, f"{name} is of type {dtype}, expected one of {', '.join(_STORED)}")
    return _STORED[dtype][0], bits.reshape(-1).view(np.uint8), bits.shape


def numbers_of(name, x, axes=None):
    """x as float64, exactly; `axes`: how many it must have. Error: no numbers, or integers that float64 lacks."""
    bits, dtype = _bits(name, x)
    require(dtype in _STORED or dtype == _EXPONENTS, f"{name} is of type {dtype}, expected one of {_KNOWN}")
    if dtype == _EXPONENTS:
        raw = bits.reshape(-1).view(np.uint8).astype(np.int64)
        wide = np.where(raw == 255, np.nan, np.ldexp(1.0, raw - 127))
    elif dtype == "float64":
        wide = bits.reshape(-1)
    else:
        if dtype in ("int64", "uint64") and bits.size:
            require(-_LARGEST_EXACT <= int(bits.min()) and int(bits.max()) <= _LARGEST_EXACT,
                    f"{name} holds integers beyond 2^53, which float64 cannot hold exactly")
        wide = _core.widened(_STORED[dtype][0], bits.reshape(-1).view(np.uint8))
    _expect_axes(name, bits, axes)
    return np.ascontiguousarray(wide, dtype=np.float64).reshape(bits.shape)


def integers_of(name, x, axes=None):
    """x as int64. Error: it holds anything but whole numbers."""
    bits, dtype = _bits(name, x)
    _expect_axes(name, bits, axes)
    if bits.size == 0:
        return np.zeros(bits.shape, np.int64)
    require(bits.dtype.kind in "iu" and dtype in _STORED and _STORED[dtype][0][0] in "IU",
            f"{name} is of type {dtype}, expected whole numbers such as int64")
    require(int(bits.max()) < 2**63, f"{name} holds integers beyond int64")
    return np.ascontiguousarray(bits, dtype=np.int64)


def _expect_axes(name, x, axes):
    require(axes is None or x.ndim == axes, f"{name} has shape {x.shape}, expected {axes} axes")


def number(name, x):
    """x as a float. Error: it is none, or NaN."""
    require(isinstance(x, numbers.Real) or (getattr(x, "ndim", None) == 0 and hasattr(x, "__float__")),
            f"{name} is {x!r:.80}, expected a number")
    try:
        value = float(x)
    except Exception:
        raise Error(f"{name} is {x!r:.80}, expected a number") from None
    require(value == value, f"{name} is NaN, expected a number")
    return value


def whole(name, x, least=0, most=2**31):
    """x as an int in [least, most]."""
    value = number(name, x)
    require(value == value // 1 and least <= value <= most,
            f"{name} is {x!r:.80}, expected a whole number from {least} to {most}")
    return int(value)


def flag(name, x):
    """x as a bool. Error: it is neither True nor False, 0 nor 1."""
    require(isinstance(x, (bool, np.bool_)) or (isinstance(x, numbers.Real) and x in (0, 1)),
            f"{name} is {x!r:.80}, expected True or False")
    return bool(x)

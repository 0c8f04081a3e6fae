"""safetensors files in plain numpy: 8 bytes of header size, a JSON header, the tensors' bytes."""
import json
import math
import pathlib

import numpy as np

from dsa import _core
from dsa._arrays import stored
from dsa._errors import Error, require


def write(path, tensors):
    """Writes {name: array of numpy, torch or JAX} as they are stored."""
    header, chunks, at = {}, [], 0
    for name, x in tensors.items():
        dtype, data, shape = stored(name, x)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + data.size]}
        chunks.append(data)
        at += data.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for data in chunks:
            file.write(data.tobytes())


def read(path, names=None):
    """{name: array}: float64, or int64 for the integers, of all tensors or of those in `names` that are there."""
    path = pathlib.Path(path)
    require(path.is_file(), f"{path} is no file, expected safetensors")
    data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    try:
        size = int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:8 + size].tobytes())
        return {name: _tensor(name, entry, data[8 + size:]) for name, entry in header.items()
                if name != "__metadata__" and (names is None or name in names)}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Error(f"{path} is no safetensors file") from None


def _tensor(name, entry, data):
    begin, end = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), entry["dtype"]
    if dtype == "I64":
        return np.frombuffer(data[begin:end].tobytes(), np.int64).reshape(shape)
    wide = _core.widened(dtype, np.ascontiguousarray(data[begin:end]))
    require(math.prod(shape) == wide.size, f"tensor {name} has {wide.size} numbers, expected shape {shape}")
    return wide.reshape(shape)

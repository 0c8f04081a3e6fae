"""Arrays come in exactly, whoever they are from; fp64 is never narrowed."""
import numpy as np
import pytest

import dsa
from dsa import reference
from dsa._arrays import integers_of, numbers_of


def test_fp64_keeps_every_bit():
    x = np.array([[np.pi, np.nextafter(1.0, 2.0), 1e300, 5e-324]])
    assert np.array_equal(numbers_of("x", x), x)
    third = np.array([[1 / 3]])
    assert reference.linear(third, np.array([[1.0]]))[0, 0] == 1 / 3
    assert reference.add(third, third)[0, 0] == 2 / 3


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e4m3fn"])
def test_every_pattern_of_a_narrow_type_is_widened_exactly(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, name, getattr(np, name, None)))
    bits = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    with np.errstate(invalid="ignore"):
        want = bits.astype(np.float64)
    assert np.array_equal(numbers_of("x", bits), want, equal_nan=True)


def test_exponents_are_powers_of_two():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e8m0fnu)
    got = numbers_of("x", bits)
    assert got[127] == 1 and got[0] == 2.0**-127 and got[254] == 2.0**127 and np.isnan(got[255])


def test_strides_do_not_matter(draw):
    x = draw.standard_normal((6, 8))
    for view in (x.T, x[::2], x[:, ::-1], np.asfortranarray(x)):
        assert np.array_equal(numbers_of("x", view), view)


def test_dlpack_is_enough(draw):
    class Foreign:
        """What a framework is that numpy knows nothing of."""

        def __init__(self, x):
            self.x = x

        def __dlpack__(self, **options):
            return self.x.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.x.__dlpack_device__()

    x = draw.standard_normal((3, 4)).astype(np.float32)
    assert np.array_equal(numbers_of("x", Foreign(x)), x.astype(np.float64))


@pytest.mark.parametrize("wrong, says", [
    (np.zeros((2, 2), np.complex64), "complex64"), (np.array(["a"]), "expected one of"),
    (np.array([2**60], np.int64), "2\\^53"), (object(), "expected"), (np.zeros(3, np.longdouble), "expected one of"),
])
def test_what_is_no_exact_number_is_refused(wrong, says):
    with pytest.raises(dsa.Error, match=says):
        numbers_of("x", wrong)


def test_subscripts_are_whole():
    assert integers_of("x", np.array([1, -1], np.int32)).dtype == np.int64
    with pytest.raises(dsa.Error, match="whole numbers"):
        integers_of("x", np.array([1.0]))


def test_torch_comes_in_and_gradients_do_not():
    torch = pytest.importorskip("torch")
    x = torch.randn(3, 4)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        assert np.array_equal(numbers_of("x", x.to(dtype)), x.to(dtype).double().numpy())
    assert np.array_equal(numbers_of("x", x.T), x.T.double().numpy())
    with pytest.raises(dsa.Error, match="requires grad"):
        numbers_of("x", x.requires_grad_())


def test_jax_comes_in():
    jax = pytest.importorskip("jax")
    x = jax.numpy.arange(6, dtype=jax.numpy.bfloat16).reshape(2, 3) / 7
    assert np.array_equal(numbers_of("x", x), np.asarray(x).astype(np.float64))

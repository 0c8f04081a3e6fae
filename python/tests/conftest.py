"""Tests of the installed package: pip install ., then pytest python/tests."""
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def draw():
    """Numbers from one seed."""
    return np.random.default_rng(20251201)


@pytest.fixture
def root():
    """The repository."""
    return ROOT

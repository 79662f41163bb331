"""Eight virtual CPU devices for every test, and the real data when it is there."""

import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Real data beside the repository; tests that need it skip where it is absent."""
    directory = pathlib.Path(os.environ.get("MARCO_SHARED", ROOT.parent / "shared"))
    if not directory.is_dir():
        pytest.skip("../shared with the real data is absent (MARCO_SHARED names another place)")
    return directory


@pytest.fixture(scope="session")
def one_device() -> list[jax.Device]:
    """The first device alone."""
    return jax.devices()[:1]

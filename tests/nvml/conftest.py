"""The stand-in for the driver's library, built once for all tests."""

import pytest
from nvml.build import CannotBuildError, Driver, build


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """Return a driver that answers whatever ``nvml.json`` says; skip where there is no compiler or no header."""
    folder = tmp_path_factory.mktemp("nvml")
    try:
        build(folder)
    except CannotBuildError as error:
        pytest.skip(str(error))
    return Driver(folder)

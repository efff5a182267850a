"""What every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; its tests are skipped where it is missing, and fail in CI."""
    folder = Path(os.environ.get("KLAGG_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "MANIFEST.md").is_file():
        reason = f"the recordings are not at {folder}; set KLAGG_TEST_DATA to the folder that holds MANIFEST.md"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder

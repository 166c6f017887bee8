"""Folders in the layouts of the published sets, for the tests of readers and of what reads their records."""

from pathlib import Path

import pytest

from tests.data_pipelines.layouts import LAYOUTS


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    """(reader class, folder in its layout), for each layout."""
    from data_pipelines.datasets import READERS

    LAYOUTS[request.param](tmp_path)
    return READERS[request.param], tmp_path


@pytest.fixture
def written(request, tmp_path):
    """A folder in the layout that the test's file is named after."""
    LAYOUTS[Path(request.fspath).name.removesuffix("_test.py")](tmp_path)
    return tmp_path

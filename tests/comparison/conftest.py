import pytest

from tests.comparison.results import make


@pytest.fixture(scope="package")
def experiment(tmp_path_factory):
    """Three models, two folds, twelve cases. Read only."""
    return make(tmp_path_factory.mktemp("results"), cases=12, folds=2)

"""Fixtures of the tests that run the real rules with stubs for jobs."""

import pytest

from engine import IDS, Engine


@pytest.fixture
def engine(tmp_path):
    return Engine(tmp_path, IDS)


@pytest.fixture(scope="session")
def batches(tmp_path_factory):
    """Return a function that copies a batch that has run; each kind runs once."""
    made = {}

    def batch(folder, rows=IDS, outputs=(), **verdicts):
        key = str((rows, outputs, verdicts))
        if key not in made:
            engine = Engine(tmp_path_factory.mktemp("finished"), rows, outputs=list(outputs))
            engine.world(**verdicts)
            assert engine.run().status == 0
            made[key] = engine
        return made[key].copied(folder)

    return batch


@pytest.fixture
def finished(batches, tmp_path):
    """Return a batch of which all is sorted."""
    return batches(tmp_path)


@pytest.fixture
def finished_but_b(batches, tmp_path):
    """Return a batch of which all is sorted but b, which its canary stopped."""
    return batches(tmp_path, b="biological")

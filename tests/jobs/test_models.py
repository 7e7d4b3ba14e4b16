import os

import pytest

from jobs import models
from pipeline.config import Settings
from stages.nn.weights import BundleError, open_bundle


def dies(*_):
    return lambda row: os._exit(1)


def never_begins(*_):
    os._exit(1)


def cannot_be_made(*_):
    raise RuntimeError("CUDA driver is too old")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (dies, "loaded: its worker died"),
        (never_begins, "before they can begin"),
        (cannot_be_made, "CUDA driver is too old"),
    ],
)
def test_a_process_that_cannot_check_the_models_is_said_in_words(make, said, monkeypatch):
    monkeypatch.setattr(models, "make_check", make)
    with pytest.raises(BundleError, match=said):
        models.check_models(Settings(), open_bundle(None))


def test_models_of_the_package_fit_the_settings_that_it_comes_with():
    models.check_models(Settings(), open_bundle(None))

"""Fixtures that every test file shares: each implementation of the router under one name."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests.packages import build
from tradebal.router.pure import Router as PythonRouter

try:
    from tradebal.router import native
except ImportError as error:
    native = None
    native_missing = str(error)

# Tests that more than one file runs.
pytest.register_assert_rewrite("tests.tls_promises")

# The suite tries the same examples in each run; `pytest --hypothesis-profile explore` looks for new ones.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=10_000)
settings.load_profile("suite")


RUN_IN_GUEST = "test_guest.py runs this in a guest that has it"
"""What the reason of a skip says if another kernel is all that is missing."""


def fail_if_skipped(report):
    """Make a skip a failure where everything that a test may need should be there."""
    skipped = report.skipped and not hasattr(report, "wasxfail") and RUN_IN_GUEST not in str(report.longrepr)
    if os.environ.get("TRADEBAL_NO_SKIPS") and skipped:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped, though TRADEBAL_NO_SKIPS is set: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return fail_if_skipped((yield))


def can_build_native():
    return bool(shutil.which("cc") or shutil.which("gcc"))


def native_variants():
    """Return how the C core can be run here: by the names of its SIMD variants if it says them."""
    if native is None:
        return [None]
    return list(native.variants()) if hasattr(native, "variants") else [None]


def native_maker(variant):
    """Return what makes routers of one variant of the C core; skip where it couldn't be built."""
    if native is None:
        assert not can_build_native(), f"a compiler is here, but the C core isn't built: {native_missing}"
        pytest.skip(f"the C core isn't built: {native_missing}")

    def make(*args, **options):
        if variant is not None:
            native.use_variant(variant)
        return native.Router(*args, **options)

    return make


NATIVE = [pytest.param(variant, id=f"native-{variant}" if variant else "native") for variant in native_variants()]


@pytest.fixture(scope="session", params=["python", *NATIVE])
def make(request):
    """Makes a router; a test that takes it runs on the Python router and on each variant of the C core."""
    return PythonRouter if request.param == "python" else native_maker(request.param)


@pytest.fixture(scope="session")
def makers():
    """All that make routers: for tests whose cost is their input's making."""
    if native is None and not can_build_native():
        return [PythonRouter]
    return [PythonRouter, *map(native_maker, native_variants())]


@pytest.fixture(scope="session", params=NATIVE)
def make_native(request):
    """Makes a router by the C core; a test that takes it runs on each of its variants."""
    return native_maker(request.param)


@pytest.fixture(scope="session")
def packages(tmp_path_factory, worker_id):
    """The project's packages by their kind, "deb" and "rpm"; built once, for all processes of the run."""
    directory = tmp_path_factory.getbasetemp()
    return build((directory if worker_id == "master" else directory.parent) / "packages")


@pytest.fixture
def ordinary_user():
    """A directory of an ordinary user's, as whom the test then runs, also where root runs the tests."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)
    finally:
        if root:
            os.seteuid(0)

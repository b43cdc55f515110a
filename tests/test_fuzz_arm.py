"""The core on 64-bit ARM: built by a cross compiler, run by an emulator, and in agreement with its portable loops."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fuzz.run import COMMITTED, CORE, CORE_FILES, HARNESS_FILES, HERE

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"


@pytest.fixture(scope="module")
def replay(tmp_path_factory) -> Path:
    for program, package in ((COMPILER, "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"), (EMULATOR, "qemu-user")):
        if not shutil.which(program):
            pytest.skip(f"{program} isn't installed (apt-get install {package})")
    built = tmp_path_factory.mktemp("arm") / "replay"
    sources = [CORE / f"{name}.c" for name in CORE_FILES]
    sources += [HERE / f"{name}.c" for name in (*HARNESS_FILES, "replay")]
    flags = ["-static", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([COMPILER, *flags, f"-I{CORE}", f"-I{HERE}", *sources, "-o", built], check=True)
    return built


def test_neon_and_portable_loops_agree_on_the_corpus(replay):
    inputs = [path for directory in COMMITTED for path in sorted((HERE / directory).glob("*"))]
    done = subprocess.run([EMULATOR, replay, *inputs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"{len(inputs)} inputs\n"


def test_the_core_compiles_for_arm_without_a_warning_about_conversions(replay, tmp_path):
    for name in CORE_FILES:
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-c"]
        subprocess.run([COMPILER, *flags, CORE / f"{name}.c", "-o", tmp_path / f"{name}.o"], check=True)

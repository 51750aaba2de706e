"""What users install: the wheel made from the source distribution, in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".tox", ".venv*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)


def _run(*command: str | Path) -> str:
    done = subprocess.run([*command], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an environment with the wheel in it, beside nothing but this one's dependencies."""
    place = tmp_path_factory.mktemp("wheel")
    sources = place / "sources"
    shutil.copytree(checkout, sources, symlinks=True, ignore=NOT_SOURCES)
    # Without --wheel or --sdist, the wheel is built from the source distribution, as it is by those who package this.
    _run(sys.executable, "-m", "build", "--quiet", "--no-isolation", "--outdir", place / "dist", sources)
    environment = place / "environment"
    _run(sys.executable, "-m", "venv", environment)
    wheel = next((place / "dist").glob("*.whl"))
    _run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    packages = next(environment.glob("lib/python*/site-packages"))
    # The dependencies were installed by hash into the environment that runs the tests: let them be found there. The
    # sources were installed there too, but as editable, by a finder that a path added like this does not start.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def _python(installed: Path, code: str) -> str:
    return _run(installed / "bin" / "python", "-I", "-c", code).strip()


def test_the_wheel_is_what_gets_imported(installed: Path) -> None:
    assert _python(installed, "import secureworker; print(secureworker.__file__)").startswith(str(installed))


@pytest.mark.parametrize(
    ("link", "source"), [("_schemas", "schemas"), ("_policies", "policies"), ("_units", "deploy/systemd")]
)
def test_the_wheel_holds_every_schema_policy_and_unit(checkout: Path, installed: Path, link: str, source: str) -> None:
    package = Path(_python(installed, "import secureworker; print(secureworker.__path__[0])"))
    there = {path.relative_to(package / link): path.read_bytes() for path in _files(package / link)}

    assert there == {path.relative_to(checkout / source): path.read_bytes() for path in _files(checkout / source)}
    assert there


def test_scripts_of_the_example_policies_can_be_executed_where_they_are_installed(installed: Path) -> None:
    package = Path(_python(installed, "import secureworker; print(secureworker.__path__[0])"))
    scripts = _files(package / "_policies" / "scripts")

    assert scripts
    assert [script.name for script in scripts if not os.access(script, os.X_OK)] == []


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_the_wheel_holds_every_module_and_data_file_of_the_package(checkout: Path, installed: Path) -> None:
    package = Path(_python(installed, "import secureworker; print(secureworker.__path__[0])"))
    names = {path.relative_to(checkout / "secureworker") for path in _files(checkout / "secureworker")}

    assert {name for name in names if "__pycache__" not in name.parts} <= {
        path.relative_to(package) for path in _files(package)
    }


def test_the_installed_command_gives_its_version_and_its_help(installed: Path) -> None:
    command = installed / "bin" / "secureworker"

    assert "0.1.0" in _run(command, "--version")
    assert "--policy" in _run(command, "run", "--help")
    assert "doctor" in _run(command, "--help")


def test_the_wheel_holds_its_licence(installed: Path) -> None:
    licence = next(installed.glob("lib/python*/site-packages/secureworker-*.dist-info/licenses/LICENSE"))

    assert "Mozilla Public License Version 2.0" in licence.read_text()

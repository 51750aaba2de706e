"""The recipe of an image, and what is said of how to run it."""

import re
from pathlib import Path

from tests.deploy.unitfiles import read_unit, seconds, words


def test_a_container_gets_the_rights_of_the_unit_and_no_others(checkout: Path) -> None:
    text = (checkout / "deploy" / "container" / "README.md").read_text()
    given = re.search(r"--cap-add (\S+)", text)
    assert given
    unit = read_unit(checkout / "deploy" / "systemd" / "secureworker.service")

    assert {f"CAP_{name}" for name in given[1].split(",")} == set(words(unit, "CapabilityBoundingSet"))
    assert text.count("--cap-drop all") == 2
    assert "--privileged " not in re.sub(r"`[^`]*`", "", text)


def test_a_container_is_waited_for_as_long_as_the_unit(checkout: Path) -> None:
    text = (checkout / "deploy" / "container" / "README.md").read_text()
    unit = read_unit(checkout / "deploy" / "systemd" / "secureworker.service")
    told = re.search(r"--stop-timeout (\d+)", text)
    assert told

    assert int(told[1]) == seconds(unit["Service"]["TimeoutStopSec"][0])


def test_the_recipe_names_files_that_are_there_and_installs_the_package(checkout: Path) -> None:
    recipe = (checkout / "deploy" / "container" / "Containerfile").read_text()

    for path in re.findall(r"/sources/(\S+)", recipe):
        assert (checkout / path).is_file(), path
    instructions = re.findall(r"^([A-Z]+) ", recipe, re.MULTILINE)
    assert set(instructions) <= {"ARG", "FROM", "RUN", "COPY", "VOLUME", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    assert 'ENTRYPOINT ["/opt/secureworker/bin/secureworker"]' in recipe


def test_no_secret_and_no_history_gets_into_the_image(checkout: Path) -> None:
    ignored = (checkout / "deploy" / "container" / "ignore").read_text().split()

    assert {".git", "*.key", ".venv*"} <= set(ignored)

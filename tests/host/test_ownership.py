"""Who else could change a file: every component of its path is looked at, as ssh does."""

import os
from pathlib import Path

import pytest

from secureworker.host.ownership import others_who_could_change

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    file = tmp_path / "a" / "b" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("x")
    for path in (tmp_path / "a", tmp_path / "a/b", file):
        path.chmod(0o755)
    return file


def test_a_file_that_only_its_owner_may_write_is_fine(place: Path) -> None:
    assert others_who_could_change(str(place)) == ()


@pytest.mark.parametrize(("mode", "who"), [(0o775, "the group"), (0o757, "everybody")])
@pytest.mark.parametrize("above", [0, 1, 2])
def test_others_may_write_neither_the_file_nor_what_it_lies_in(place: Path, mode: int, who: str, above: int) -> None:
    spoiled = [place, *place.parents][above]
    spoiled.chmod(mode)
    (problem,) = others_who_could_change(str(place))
    assert problem.startswith(f"{spoiled} may be written by {who}")
    assert problem.endswith(f"chmod go-w {spoiled}")


def test_a_sticky_directory_may_be_written_by_all(place: Path) -> None:
    place.parent.chmod(0o1777)
    assert others_who_could_change(str(place)) == ()


def test_a_sticky_file_may_not(place: Path) -> None:
    place.chmod(0o1777)
    assert others_who_could_change(str(place))


@as_root
@pytest.mark.parametrize("above", [0, 1])
def test_a_file_or_directory_of_somebody_else_is_theirs_to_change(place: Path, above: int) -> None:
    os.chown([place, *place.parents][above], 12345, 12345)
    assert "belongs to uid 12345" in others_who_could_change(str(place))[0]


def test_what_a_link_leads_through_is_looked_at_too(place: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("a/../a/./b/file")
    assert others_who_could_change(str(link)) == ()
    place.parent.chmod(0o777)
    (problem,) = others_who_could_change(str(link))
    assert problem.startswith(f"{place.parent} may be written")


def test_an_absolute_link_starts_from_the_root(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place.parent)
    assert others_who_could_change(str(tmp_path / "link" / "file")) == ()
    place.chmod(0o777)
    assert others_who_could_change(str(tmp_path / "link" / "file"))


def test_links_that_lead_round_are_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert "symbolic links" in others_who_could_change(str(tmp_path / "one"))[-1]


def test_what_does_not_exist_is_said(tmp_path: Path) -> None:
    assert others_who_could_change(str(tmp_path / "none")) == (f"{tmp_path / 'none'}: No such file or directory",)

"""Options of `facerec edge` and of the local device that are refused before anything is done."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from facerec.cli import cli
from facerec.errors import FacerecError

WRONG_OPTION = 2


@pytest.mark.parametrize("version", ["2.7", "3", "3.10", "3.13.1", "three"])
def test_package_names_a_version_of_python_that_it_takes(version: str) -> None:
    """Of pip the user would see the usage."""
    result = CliRunner().invoke(cli, ["edge", "package", "--python", version])
    assert result.exit_code == WRONG_OPTION
    assert f"'{version}' is no version such as 3.13; facerec needs 3.11 or newer" in result.stderr


def test_package_refuses_a_file_that_is_no_wheel_of_facerec(tmp_path: Path) -> None:
    """By its name, as pip judges wheels."""
    other = tmp_path / "other-1.0-py3-none-any.whl"
    other.touch()
    result = CliRunner().invoke(cli, ["edge", "package", "--wheel", str(other)])
    assert result.exit_code == WRONG_OPTION
    assert "is no wheel of facerec" in result.stderr


def test_package_says_at_once_that_its_folder_cannot_be_made(tmp_path: Path) -> None:
    """Before pip downloads anything."""
    file = tmp_path / "file"
    file.touch()
    result = CliRunner().invoke(cli, ["edge", "package", "--no-model", "--output", str(file / "dist")])
    assert isinstance(result.exception, FacerecError)
    assert str(result.exception) == f"cannot write {file / 'dist'}: Not a directory"


@pytest.mark.parametrize("command", ["provision", "revoke", "remove", "deploy", "status"])
def test_commands_of_a_thing_refuse_what_is_no_name(command: str) -> None:
    """AWS is not called."""
    result = CliRunner().invoke(cli, ["edge", command, "gate/1"])
    assert result.exit_code == WRONG_OPTION
    assert "'gate/1' is no name of a thing" in result.stderr


def test_archive_of_a_local_device_needs_its_nucleus(tmp_path: Path) -> None:
    """One option would have to win without a word."""
    archive = tmp_path / "facerec-edge.zip"
    archive.write_text("no archive")
    up = ["local", "up", "--state", str(tmp_path / "state")]
    for options, sentence in (
        (["--tier", "edge", "--component", str(archive), "--no-nucleus"], "leave out --no-nucleus"),
        (["--component", str(archive)], "--component is for --tier edge"),
        (["--no-nucleus"], "--no-nucleus is for --tier edge"),
    ):
        result = CliRunner().invoke(cli, [*up, *options])
        assert result.exit_code == WRONG_OPTION
        assert sentence in result.stderr
    result = CliRunner().invoke(cli, [*up, "--tier", "edge", "--component", str(archive)])
    assert "is no archive of `facerec edge package`" in str(result.exception)
    assert not (tmp_path / "state").exists()

"""What every command does with the messages of the code that it runs."""

import logging

import pytest

from detector.base import cli


def test_log_messages_of_the_project_are_printed_on_stderr(capsys):
    def run(args):
        logging.getLogger("trials.tracking.tracker").info("seen")
        logging.getLogger("detector.config").debug("too detailed")
        logging.getLogger("somebody.else").info("not ours")

    assert cli.main(cli.parser("command", "Does nothing."), run, []) == 0
    logging.getLogger("trials").info("after the command")
    assert capsys.readouterr().err == "seen\n"


@pytest.mark.parametrize(
    "error, says",
    [
        (FileNotFoundError(2, "No such file or directory", "/no/such"), "/no/such: No such file"),
        (IsADirectoryError(21, "Is a directory", b"/tmp"), "/tmp: Is a directory; check the path"),
        (PermissionError(13, "Permission denied", "/x"), "/x: no permission; allow it with chmod"),
    ],
)
def test_an_error_about_a_file_that_nobody_reported_is_one_line(capsys, error, says):
    def fail(args):
        raise error

    assert cli.main(cli.parser("x", "x"), fail, []) == cli.EXIT_USER_ERROR
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {says}") and err.count("\n") == 1


def test_an_error_that_is_not_about_a_file_keeps_its_traceback():
    def fail(args):
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(ConnectionRefusedError):
        cli.main(cli.parser("x", "x"), fail, [])


def test_json_goes_through_a_link_and_not_below_a_closed_folder(public_path, closed, capsys):
    (public_path / "link").symlink_to("target")
    (public_path / "folder").mkdir()
    flags = cli.parser("x", "x"), lambda args: {"a": 1}
    assert cli.main(*flags, ["--json", str(public_path / "link")]) == 0
    assert (public_path / "target").read_text() == '{\n  "a": 1\n}\n'
    with closed(public_path / "folder"):
        assert cli.main(*flags, ["--json", str(public_path / "folder" / "inner" / "x")]) == 2
    err = capsys.readouterr().err
    assert f"{public_path}/folder is closed to this user" in err and err.count("\n") == 1

"""What every command does with the messages of the code that it runs."""

import logging

from detector.base import cli


def test_log_messages_of_the_project_are_printed_on_stderr(capsys):
    def run(args):
        logging.getLogger("trials.tracking.tracker").info("seen")
        logging.getLogger("detector.config").debug("too detailed")
        logging.getLogger("somebody.else").info("not ours")

    assert cli.main(cli.parser("command", "Does nothing."), run, []) == 0
    logging.getLogger("trials").info("after the command")
    assert capsys.readouterr().err == "seen\n"

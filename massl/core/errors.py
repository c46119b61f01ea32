"""The one kind of error that reaches a person: a sentence that says what to do next."""


class MasslError(Exception):
    """A failure with a one-line reason, shown as it stands and without a traceback.

    Raised where the cause is known, caught once, at the command line or the page. `exit_code` is what the command
    then exits with (see the table of exit codes in `docs/reference/commands.md`).
    """

    exit_code = 1

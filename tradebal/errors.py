"""The one exception that ends a command with a message for its user instead of a traceback."""


class UserError(Exception):
    """Something that whoever started the command can put right.

    `message` says in one line what was wrong and where, `hint` what to do next. `code` is the exit status: 1 failed,
    2 command line or configuration, 3 something else holds what is needed.
    """

    def __init__(self, message: str, *, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

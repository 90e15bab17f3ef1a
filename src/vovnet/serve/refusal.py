"""Why a request gets no answer: an HTTP status, a reason to count, and one line for the client."""


class Refusal(Exception):
    """A request that is refused; `reason` is the word by which the metrics count it."""

    def __init__(
        self, status: int, reason: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.headers = status, reason, headers or {}

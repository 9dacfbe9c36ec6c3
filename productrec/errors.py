"""Every error a user can cause or meet: one root, a few kinds, an exit code each; `cli` turns them into one line."""

from collections.abc import Iterable


class ProductrecError(Exception):
    """Root of the errors meant for a reader: ``<where>: <what> must be <expected>; got <actual>. <how to mend it>``."""

    exit_code = 1


class RecipeError(ProductrecError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class DataError(ProductrecError):
    """The source files do not hold what the job needs."""

    exit_code = 3


class ArtifactError(ProductrecError):
    """An artefact is missing, damaged, or does not match what it is combined with."""

    exit_code = 4


class SubmissionError(ProductrecError):
    """The predictions do not fit the competition's contract."""

    exit_code = 5


class StorageError(ProductrecError):
    """The disk refused: full, read-only or not permitted."""

    exit_code = 6


class TrainingError(ProductrecError):
    """Training cannot go on: no finite loss, nothing to learn from, a model that cannot be built."""

    exit_code = 7


class ProcessLost(TrainingError):
    """A process that training needs has died or hangs: another rank, or a loader's. Resuming may well go on."""

    exit_code = 8


class UploadError(ProductrecError):
    """A submission cannot be sent or scored: no credentials, no submission left today, or the server refused."""

    exit_code = 9


class Interrupted(ProductrecError):
    """The user or the machine asked to stop; what was finished is on disk. 130 after Ctrl-C, 143 after SIGTERM."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def describe_error(error: BaseException) -> str:
    """What an error of another library says: the first line of its text that is not empty, else the error's kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def describe_offenders(items: Iterable[object], most: int = 5) -> str:
    """List the first few of ``items`` after their count: ``12 (a, b, c, d, e, ...)``."""
    listed = list(items)
    shown = ", ".join(str(item) for item in listed[:most])
    return f"{len(listed)} ({shown}{', ...' if len(listed) > most else ''})"

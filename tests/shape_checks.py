"""The checks of shapes that jaxtyping makes, and where they must rest."""

import contextlib
from collections.abc import Iterator

import jaxtyping


@contextlib.contextmanager
def no_shape_checks() -> Iterator[None]:
    """Turns jaxtyping's checks off, and leaves them as they were: other fixtures of a process may need them off too."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)

"""An address that can't be had is one sentence, before anything is loaded."""

import pytest

from experiments.shared.addresses import listen
from tests.commands import in_process


def test_an_address_that_is_taken_or_is_none_is_named():
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        for flags, reason in (
            ([f"--port={port}"], "Address already in use"), (["--host=nowhere.invalid"], "can't be listened at"),
        ):  # fmt: skip
            done = in_process("serve", "--source=nowhere", *flags)
            assert done.returncode == 2 and reason in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_port_0_is_any_that_is_free(host):
    with listen(host, 0) as listener:
        assert listener.getsockname()[1] > 0

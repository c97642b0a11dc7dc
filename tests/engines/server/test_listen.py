"""Where a server listens."""

from __future__ import annotations

import socket

from strop.engines.server.listen import listening


def test_a_word_does_not_wait_for_the_one_before_to_be_confirmed() -> None:
    """Nagle's algorithm is off on the connections that are taken, not on the listener alone."""
    with (
        listening("127.0.0.1", 0) as listens,
        socket.create_connection(listens.getsockname()),
        listens.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

"""Ports that are chosen now and listened on later."""

import socket

from facerec.processes.addresses import LOOPBACK, free_port


def test_free_port_is_given_once_and_a_server_can_listen_on_it() -> None:
    """Of 1 000 ports that were only bound and closed, the kernel gave about a hundred twice."""
    ports = [free_port() for _ in range(1000)]

    assert len(set(ports)) == len(ports)
    for port in ports:
        socket.create_server((LOOPBACK, port)).close()


def test_preferred_port_is_kept_while_it_is_free() -> None:
    """Then any other is taken."""
    preferred = free_port()

    assert free_port(preferred) == preferred
    with socket.create_server((LOOPBACK, preferred)):
        assert free_port(preferred) != preferred

"""The address to listen on: only this machine's unless there is a key, and bound before the model is loaded."""

import errno
import ipaddress
import re
import socket
from collections.abc import Collection
from contextlib import suppress

from ftkit.errors import EnvironmentFault, InputError

MAX_CONNECTIONS = 1024
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def listen(host: str, port: int, key: str | None) -> socket.socket:
    """Bind an address, on a free port if ``port`` is 0; connections wait until the server runs.

    Raises:
        InputError: The address is open to other machines and there is no key, or it is not an address.
        EnvironmentFault: The port is in use or not allowed.
    """
    if not is_loopback(host) and not key:
        raise InputError(
            "an address open to other machines needs a key", field="host", got=host, fix="set FTKIT_API_KEY to a secret"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    no_address = InputError("no such address", field="host", got=host)
    try:
        return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except TypeError as error:  # no name can be written so, such as a..b
        raise no_address from error
    except OSError as error:
        if isinstance(error.__context__, socket.gaierror):  # which create_server makes an error like the others
            raise no_address from error
        in_use = error.errno == errno.EADDRINUSE
        problem = "is in use" if in_use else f"cannot be bound: {error.strerror}"
        raise EnvironmentFault(f"port {port} on {host} {problem}", fix="choose another --port") from error


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def hosts_of(host: str, allowed: Collection[str] = ()) -> Collection[str] | None:
    """Return the host names that clients may use, the ``allowed`` ones among them.

    None stands for any: where the address is open to all interfaces and no host is named. The names are in lower case.

    Raises:
        InputError: An allowed one is no host name, or is one with a port, a path or a wildcard.
    """
    names = {name.lower() for name in allowed}
    for name in names:
        if not re.fullmatch(r"[a-z0-9._-]+", name) and _address(name) is None:
            problem = "must be a host name without port, path and wildcard"
            raise InputError(problem, field="allowed_hosts", got=name, fix="--allowed_hosts llm.example")
    host = host.lower()
    if is_loopback(host):
        return {*LOOPBACK_NAMES, host, *names}
    address = _address(host)
    if address is not None and address.is_unspecified:
        return {*LOOPBACK_NAMES, *names} if names else None
    return {host, *names}


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is written as; None if it is a name."""
    with suppress(ValueError):
        return ipaddress.ip_address(host)
    return None

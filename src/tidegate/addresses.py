"""Whose address is it: what counts as one stranger where guesses and connections are counted."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(4096)
def network_of(address: str) -> str:
    """The address; of IPv6 the /64 that it is in, for that much is given to a single machine.

    Counted by address, everybody with IPv6 would have 2^64 times what an address may have. Text
    that is no address stands for itself.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))

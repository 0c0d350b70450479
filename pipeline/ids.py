"""Ids that sort by the time they were made: `<kind>_` and 26 characters (ULID)."""

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(kind: str, now: int) -> str:
    """`run_01k…`: 48 bits of `now` (ms) and 80 random ones in Crockford's base 32, so that ids made later sort later."""
    value = (now << 80) | secrets.randbits(80)
    return f"{kind}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -5, -5))

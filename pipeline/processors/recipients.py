"""Whom a notification is for: what `to` may look like on each channel."""

import re
from email.errors import MessageError
from email.headerregistry import Address

_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_SLACK = re.compile(r"[#@+]?[\w.-]{1,80}")
_PUSH = re.compile(r"[A-Za-z0-9._~:@+#=-]{1,320}")


def fault(channel: str, to: str) -> str | None:
    """What is wrong with a recipient, without repeating it; None if it fits the channel (email, slack, sms, push)."""
    if channel == "email" and not _is_email(to):
        return "should be one e-mail address, such as jane@example.com"
    if channel == "sms" and not _E164.fullmatch(to):
        return "should be a telephone number in E.164: + and 7 to 15 digits, such as +4915112345678"
    if channel == "slack" and not (_SLACK.fullmatch(to) or _is_email(to)):
        return "should be a channel (#compliance), a user (@jane), an id, or the e-mail address of a user"
    if channel == "push" and not _PUSH.fullmatch(to):
        return "should be a device's token, a user's key or a topic: letters, digits and ._~:@+#=-"
    return None


def _is_email(to: str) -> bool:
    try:
        address = Address(addr_spec=to)
        domain = address.domain.encode("idna").decode()
    except (MessageError, ValueError, IndexError):
        return False
    # A quoted local part may hold anything, which providers do not take.
    return '"' not in to and 0 < len(address.username) <= 64 and len(domain) <= 253 and _DOMAIN.fullmatch(domain) is not None

"""Secrets at rest."""

import os

import pytest

from webhooks.errors import InvalidInput, MissingKey
from webhooks.vault import Vault


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old, new = os.urandom(32), os.urandom(32)
    token = Vault([old]).seal("whsec_x", owner="e")
    both = Vault([new, old])
    assert both.open(token, owner="e") == "whsec_x"
    assert Vault([new]).open(both.seal("whsec_x", owner="e"), owner="e") == "whsec_x"
    assert "whsec" not in token


def test_a_key_that_is_missing_is_named_by_its_id() -> None:
    token = Vault([os.urandom(32)]).seal("whsec_x", owner="e")
    with pytest.raises(MissingKey, match=token.split(".")[1]):
        Vault([os.urandom(32)]).open(token, owner="e")


@pytest.mark.parametrize("damage", [lambda t: t[:-6] + "AAAA==", lambda t: t + "!", lambda t: t[:20], lambda t: "garbage", lambda t: "v2" + t[2:]])
def test_a_damaged_token_is_refused(damage) -> None:
    vault = Vault([os.urandom(32)])
    with pytest.raises(MissingKey):
        vault.open(damage(vault.seal("whsec_x", owner="e")), owner="e")


def test_a_token_is_worth_nothing_in_another_endpoint() -> None:
    vault = Vault([os.urandom(32)])
    with pytest.raises(MissingKey):
        vault.open(vault.seal("whsec_x", owner="mine"), owner="theirs")


def test_keys_are_checked_and_never_shown() -> None:
    with pytest.raises(InvalidInput, match="no encryption key"):
        Vault([])
    with pytest.raises(InvalidInput, match="key 2 has 3 bytes"):
        Vault([os.urandom(32), b"abc"])
    key = b"k" * 32
    assert "kkk" not in repr(Vault([key]))

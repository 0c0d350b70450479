"""Secrets of a development service: made once, kept in the data folder, readable by its owner alone."""

import base64
import json
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.store.embedded import unusable


def with_dev_secrets(config: Config) -> Config:
    """The configuration with the secrets that it leaves open, from `<data folder>/dev-secrets.json` (mode 0600)."""
    path = Path(config.data_dir) / "dev-secrets.json"
    try:
        kept = json.loads(path.read_text()) if path.exists() else _make(path)
        kept["jwtSecret"], kept["encryptionKey"]
    except OSError as error:
        raise unusable(path.parent, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: remove it, and new secrets are made (earlier tokens and endpoints' secrets are then void)") from error
    auth, keys = config.auth, config.encryption_keys
    if auth.jwt_secret is None and auth.jwks_url is None:
        auth = auth.model_copy(update={"jwt_secret": SecretStr(kept["jwtSecret"])})
    if not keys:
        keys = (SecretStr(kept["encryptionKey"]),)
    push = config.push
    if push.secret is None:
        push = push.model_copy(update={"secret": SecretStr(f"whsec_{kept['encryptionKey']}")})
    return config.model_copy(update={"auth": auth, "encryption_keys": keys, "push": push})


def _make(path: Path) -> dict[str, str]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = {"jwtSecret": secrets.token_urlsafe(48), "encryptionKey": base64.b64encode(secrets.token_bytes(32)).decode()}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        json.dump(made, file)
    # Two processes may be making them at once: whoever links first wins, the other takes what it finds.
    try:
        os.link(draft, path)
    except FileExistsError:
        return dict(json.loads(path.read_text()))
    finally:
        draft.unlink()
    return made

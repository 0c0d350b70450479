"""The files of docker/ as far as they can be judged without an engine: their form, and the facts that README.md and design.md promise."""

import ipaddress
import json
import re
import shlex
import stat
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline import configfile
from tests.support.compose import FILE, Missing, loaded
from tests.support.service import ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = {"Dockerfile": "hookline", "analysis.Dockerfile": "analysis-service", "files.Dockerfile": "file-service"}
SECRETS = {"HOOKLINE_JWT_SECRET", "HOOKLINE_ENCRYPTION_KEYS", "ANALYSIS_WEBHOOK_SECRET", "HOOKLINE_PUSH_SECRET", "FILE_SERVICE_KEY"}
OURS = ("auth-service", "worker", "analysis-service", "risk-service", "file-service")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What make-env writes."""
    path = tmp_path_factory.mktemp("env") / ".env"
    subprocess.run([DOCKER / "make-env", path], check=True, capture_output=True)
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


@pytest.fixture(scope="module")
def compose(made: dict[str, str]) -> dict[str, Any]:
    return loaded(made)


def instructions(name: str) -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (DOCKER / name).read_text(), flags=re.MULTILINE))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def last_stage(name: str) -> list[tuple[str, str]]:
    every = instructions(name)
    return every[max(number for number, (word, _) in enumerate(every) if word == "FROM") :]


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_make_env_writes_each_secret_once_for_its_owner_alone(tmp_path: Path, made: dict[str, str]) -> None:
    assert made.keys() == SECRETS
    path = tmp_path / ".env"
    subprocess.run([DOCKER / "make-env", path], check=True, capture_output=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = dict(line.split("=", 1) for line in path.read_text().splitlines())
    assert all(again[name] != made[name] and len(made[name]) > 40 for name in SECRETS)
    before = path.read_text()
    second = subprocess.run([DOCKER / "make-env", path], check=False, capture_output=True, text=True)
    assert (second.returncode, path.read_text()) == (1, before)
    assert "is there already" in second.stderr


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_no_secret_has_a_default(name: str, made: dict[str, str]) -> None:
    with pytest.raises(Missing, match=name):
        loaded({variable: value for variable, value in made.items() if variable != name})
    for file in DOCKER.iterdir():
        assert not re.search(rf"\b{name}\}}?:-", file.read_text()), file.name


def test_the_configuration_is_whole_with_what_compose_gives_it(compose: dict[str, Any]) -> None:
    config = configfile.load(DOCKER / "config.yaml", compose["services"]["auth-service"]["environment"])
    configfile.require_secrets(config)
    assert config.auth.anonymous_jobs
    assert config.redis.url is not None
    (endpoint,) = config.webhooks.endpoints
    assert endpoint.url == "http://analysis-service:8000/hooks"
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text())["workflows"]
    same = {name: config.workflows[name] for name in shipped}
    assert same == shipped, "docker/config.yaml should have the workflows of config.yaml"


def test_the_risk_service_is_asked_and_calls_back_inside_the_network(compose: dict[str, Any]) -> None:
    services = compose["services"]
    config = configfile.load(DOCKER / "config.yaml", services["auth-service"]["environment"])
    risk = services["risk-service"]
    assert risk["build"] == services["analysis-service"]["build"]
    assert (ROOT / "examples" / "analysis-service" / risk["entrypoint"][1]).is_file()
    port = risk["command"][risk["command"].index("--port") + 1]
    assert config.queues["risk-analysis"].processors == {"analyze-risk": f"http://risk-service:{port}/jobs"}
    assert risk["healthcheck"]["test"] == ["CMD", "python", "healthcheck.py", "/health", port]
    assert config.server.public_url == "http://auth-service:3000"
    assert config.push.secret is not None
    assert config.push.secret.get_secret_value() == risk["environment"]["PUSH_SECRET"]
    assert config.workflows["document-risk"]["steps"]["assess"]["queue"] == "risk-analysis"


# --- compose.yaml ----------------------------------------------------------------------------------------------------


def test_compose_has_the_form_of_the_specification(compose: dict[str, Any]) -> None:
    # From github.com/compose-spec/compose-go v2.16.2 (Apache-2.0), which is what `docker compose` checks with.
    schema = json.loads((ROOT / "tests" / "vectors" / "compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(compose)
    wrong = json.loads(json.dumps(compose))
    wrong["services"]["auth-service"]["cap_dorp"] = ["ALL"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(wrong)


def test_the_service_scales_and_only_the_proxy_publishes_its_port(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services.keys() >= {"auth-service", "worker", "proxy", "valkey", "analysis-service", "risk-service", "file-service", "smtp"}
    for name in ("auth-service", "worker"):
        assert not services[name].keys() & {"ports", "container_name", "hostname"}, f"{name} could not be scaled"
    assert services["auth-service"]["expose"] == ["3000"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"proxy": ["127.0.0.1:3000:3000"], "file-service": ["127.0.0.1:8080:8080"], "smtp": ["127.0.0.1:8025:8025"]}
    assert loaded({**dict.fromkeys(SECRETS, "x"), "HOOKLINE_PUBLISH": "3000"})["services"]["proxy"]["ports"] == ["3000:3000"]
    caddy = (DOCKER / "Caddyfile").read_text()
    assert re.search(r"dynamic a \{\s+name auth-service\s+port 3000\s", caddy)
    assert "header_up Authorization {http.request.header.Authorization}" in caddy


def test_the_store_loses_nothing_and_only_the_service_reaches_it(compose: dict[str, Any]) -> None:
    valkey = compose["services"]["valkey"]
    command = valkey["command"]
    settings = {command[i].removeprefix("--"): command[i + 1] for i in range(1, len(command), 2)}
    assert (settings["appendonly"], settings["appendfsync"], settings["maxmemory-policy"]) == ("yes", "always", "noeviction")
    assert valkey["volumes"] == ["store:/data"]
    assert compose["networks"]["store"] == {"internal": True}
    assert {name for name, service in compose["services"].items() if "store" in service["networks"]} == {"auth-service", "worker", "valkey"}
    assert valkey["networks"] == ["store"]


def test_webhooks_go_to_the_network_of_the_services_and_no_other(compose: dict[str, Any]) -> None:
    (subnet,) = [part["subnet"] for part in compose["networks"]["hookline"]["ipam"]["config"]]
    assert compose["services"]["auth-service"]["environment"]["HOOKLINE_SUBNET"] == subnet
    assert ipaddress.ip_network(subnet).is_private
    config = configfile.load(DOCKER / "config.yaml", compose["services"]["auth-service"]["environment"])
    assert config.webhooks.allow_networks == (subnet,)


def test_services_wait_for_what_they_need_and_have_time_to_end(compose: dict[str, Any]) -> None:
    services = compose["services"]
    healthy = {"condition": "service_healthy"}
    assert services["auth-service"]["depends_on"] == services["worker"]["depends_on"] == {"valkey": healthy}
    assert services["proxy"]["depends_on"] == services["file-service"]["depends_on"] == {"auth-service": healthy}
    drain = configfile.load(DOCKER / "config.yaml", services["auth-service"]["environment"]).server.drain
    for name in ("auth-service", "worker"):
        assert int(services[name]["stop_grace_period"].removesuffix("s")) * 1000 >= drain + 10_000
    for name in OURS:
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]


def test_documents_are_shared_and_owned_by_one_user(compose: dict[str, Any]) -> None:
    targets = {
        name: volume.partition(":")[2]
        for name, service in compose["services"].items()
        for volume in service.get("volumes", ())
        if volume.startswith("storage:")
    }
    assert targets == {"auth-service": "/srv/hookline/storage", "worker": "/srv/hookline/storage", "file-service": "/storage"}
    assert "install -d -o 10001 -g 10001 /srv/hookline /srv/hookline/storage" in " ".join(rest for _, rest in last_stage("Dockerfile"))
    assert "--chown=10001:10001 /out/storage /storage" in " ".join(rest for _, rest in last_stage("files.Dockerfile"))
    assert ("ENV", "STORAGE=/storage") in last_stage("files.Dockerfile")


def test_every_path_that_compose_names_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        if "build" in service:
            assert (FILE.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", ()):
            if volume.startswith("."):
                assert (FILE.parent / volume.split(":")[0]).is_file()
                assert volume.endswith(":ro")


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_has_stages_no_root_and_a_health_check(name: str) -> None:
    every, last = instructions(name), last_stage(name)
    assert sum(1 for word, _ in every if word == "FROM") == 2
    for _, image in (pair for pair in every if pair[0] == "FROM"):
        assert re.match(r"scratch$|[a-z]+:[0-9][\w.-]+", image), f"{image}: name a version"
    assert ("USER", "10001:10001") in last
    after = [word for word, _ in last[last.index(("USER", "10001:10001")) :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)
    words = dict(last)
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD", "EXPOSE"} <= words.keys()
    for word in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(words[word]), list), "the shell's form does not pass signals on"
    assert not any(secret in rest for _, rest in every for secret in SECRETS)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_copies_is_there_and_not_ignored(name: str) -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    for word, rest in instructions(name):
        if word != "COPY" or "--from=" in rest:
            continue
        *sources, _ = [part for part in shlex.split(rest) if not part.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, f"{source} does not reach the builder"


def test_secrets_and_rubbish_stay_out_of_the_images() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    last_taken = max(number for number, line in enumerate(ignored) if line.startswith("!"))
    for path in ("examples/analysis-service/.env", "docker/.env", "pipeline/__pycache__"):
        assert any(fnmatch(path, line.replace("**/", "*")) for line in ignored[last_taken + 1 :]), path
    assert ".env" in (DOCKER / ".gitignore").read_text().split()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, DOCKER / name], check=False, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")

"""The configuration: what wins over what, what is refused and where, and that no secret shows."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline import configfile
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.jobs.registry import resolve_all

ROOT = Path(__file__).parents[2]
KEY = base64.b64encode(b"k" * 32).decode()
DOCUMENTS, NOTIFICATIONS = "document-processing", "notifications"


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """`load(text, **environment)` as `hookline` would with this config.yaml."""

    def load(text: str, *, overrides: Any = None, dev: bool = False, **environ: str) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return configfile.load(path, environ, dev=dev, overrides=overrides)

    return load


@pytest.fixture
def refused(load: Any) -> Any:
    """`refused(text, **environment)` → the complaints, one line each, without the folder."""

    def refused(text: str, **more: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, **more)
        lines = str(caught.value).splitlines()[1:]
        return [line.strip().replace(f"{Path(str(caught.value.file)).parent}/", "") for line in lines]

    return refused


def test_without_file_and_environment_the_built_in_values_hold() -> None:
    config = configfile.load(None, {})
    assert (config.server.port, config.redis.url, config.bullmq.prefix, config.data_dir, config.dev) == (3000, None, "bull", ".hookline", False)
    settings = {
        name: (queue.attempts, queue.backoff.type, queue.backoff.delay, queue.keep.completed, queue.keep.failed)
        for name, queue in config.queues.items()
    }
    assert settings == {
        "document-processing": (3, "exponential", 2000, 100, 50),
        "compliance-analysis": (3, "exponential", 5000, 100, 50),
        "notifications": (5, "exponential", 1000, 100, 50),
    }
    assert config.workflows == {}


def test_the_shipped_file_starts_as_it_is_with_dev() -> None:
    config = configfile.load(ROOT / "config.yaml", {}, dev=True)
    assert configfile.missing_secrets(config) == ()
    assert list(config.workflows) == ["document-upload"]
    assert config.folder == str(ROOT)
    # It must not repeat built-in values: BULLMQ_DEFAULT_JOB_OPTIONS would then have no effect.
    assert configfile.load(ROOT / "config.yaml", {"BULLMQ_DEFAULT_JOB_OPTIONS": '{"attempts": 9}'}).queues[DOCUMENTS].attempts == 9


@pytest.mark.parametrize("text", ["", "# nothing\n", "workflows:\nserver:\nqueues:\n", "queues: {notifications: null}"])
def test_a_section_with_nothing_in_it_is_as_if_left_out(load: Any, text: str) -> None:
    assert load(text).model_dump(exclude={"folder"}) == configfile.load(None, {}).model_dump(exclude={"folder"})


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("server: {port: 4000}")
    environ = {"HOOKLINE_CONFIG": str(tmp_path / "other.yaml")}
    assert configfile.load(None, environ).server.port == 4000
    assert configfile.load(None, environ).folder == str(tmp_path)


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), (b"\xff\xfe\x00", "is not UTF-8 text"), (b"a: [", "is not valid YAML")])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        configfile.load(path, {})


# --- what wins ------------------------------------------------------------------------------------------------------------


def test_queues_are_merged_key_by_key(load: Any) -> None:
    config = load(
        f"queues:\n  {DOCUMENTS}: {{concurrency: 3, backoff: {{delay: 9s}}, processors: {{other: a.b:C}}}}\n  mine: {{processors: {{x: external}}}}"
    )
    queue = config.queues[DOCUMENTS]
    assert (queue.concurrency, queue.attempts, queue.backoff.type, queue.backoff.delay) == (3, 3, "exponential", 9000)
    # The built-in one stays first: a plain POST gives its name to the job.
    assert list(queue.processors) == ["process-document", "other"]
    assert list(config.queues) == ["document-processing", "compliance-analysis", "notifications", "mine"]
    assert config.queues[NOTIFICATIONS].attempts == 5


@pytest.mark.parametrize(
    ("text", "place", "own"),
    [
        ("queues:\n  mine:\n    processors:\n      theirs: external\n      ours: a.b:C\n", (4, 7), "ours"),
        (f"queues:\n  {DOCUMENTS}: {{processors: {{theirs: external}}}}\n", (2, 37), "process-document"),
    ],
)
def test_a_queue_is_external_as_a_whole(load: Any, text: str, place: tuple[int, int], own: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    (fault,) = caught.value.faults
    assert (fault.line, fault.column) == place
    assert f"'theirs' is external and {own!r} is not" in str(fault)
    assert "a queue of their own" in str(fault)


def test_a_built_in_queue_may_be_external(load: Any) -> None:
    config = load(f"queues:\n  {DOCUMENTS}: {{processors: {{process-document: external}}}}\n")
    assert config.queues[DOCUMENTS].external
    assert not config.queues[NOTIFICATIONS].external
    assert resolve_all(config)[DOCUMENTS] == {}


def test_default_job_options_stand_between_built_in_and_file(load: Any) -> None:
    options = {"attempts": 9, "backoff": {"type": "fixed", "delay": 100}, "removeOnComplete": 7, "removeOnFail": {"count": 8}}
    config = load(f"queues: {{{DOCUMENTS}: {{attempts: 4}}, mine: {{}}}}", BULLMQ_DEFAULT_JOB_OPTIONS=json.dumps(options))
    assert [config.queues[name].attempts for name in (DOCUMENTS, NOTIFICATIONS, "mine")] == [4, 9, 9]
    queue = config.queues[DOCUMENTS]
    assert (queue.backoff.type, queue.backoff.delay, queue.keep.completed, queue.keep.failed) == ("fixed", 100, 7, 8)


@pytest.mark.parametrize(("option", "kept"), [("100", 100), ("true", 0), ("false", -1), ('{"count": 5}', 5)])
def test_remove_on_complete_in_all_its_forms(load: Any, option: str, kept: int) -> None:
    assert load("", BULLMQ_DEFAULT_JOB_OPTIONS=f'{{"removeOnComplete": {option}}}').queues[DOCUMENTS].keep.completed == kept


def test_a_backoff_that_is_a_number_is_fixed(load: Any) -> None:
    backoff = load("", BULLMQ_DEFAULT_JOB_OPTIONS='{"backoff": 1500}').queues[DOCUMENTS].backoff
    assert (backoff.type, backoff.delay) == ("fixed", 1500)


def test_environment_over_file_and_command_line_over_both(load: Any) -> None:
    text = "server: {port: 1, host: h}\nbullmq: {prefix: x}\ndata_dir: d\nlog_format: json\nauth: {jwt_secret: s}"
    environ = {
        "HOOKLINE_PORT": "2", "BULLMQ_PREFIX": "y", "HOOKLINE_DATA_DIR": "e", "HOOKLINE_LOG_FORMAT": "console",
        "HOOKLINE_JWT_SECRET": "t", "HOOKLINE_ENCRYPTION_KEYS": f"{KEY}, {KEY}",
    }  # fmt: skip
    config = load(text, **environ)
    assert (config.server.port, config.server.host, config.bullmq.prefix, config.data_dir, config.log_format) == (2, "h", "y", "e", "console")
    assert config.auth.jwt_secret.get_secret_value() == "t"
    assert [key.get_secret_value() for key in config.encryption_keys] == [KEY, KEY]
    assert load(text, overrides={"server": {"port": 3}}, **environ).server.port == 3


@pytest.mark.parametrize(
    ("environ", "url", "warns"),
    [
        ({}, None, False),
        ({"REDIS_URL": ""}, None, False),
        ({"REDIS_URL": "redis://a:1/2"}, "redis://a:1/2", False),
        ({"REDIS_HOST": "a"}, "redis://a:6379", False),
        ({"REDIS_PORT": "7"}, "redis://127.0.0.1:7", False),
        ({"REDIS_HOST": "::1", "REDIS_PORT": "7"}, "redis://[::1]:7", False),
        ({"REDIS_URL": "redis://a", "REDIS_HOST": "A", "REDIS_PORT": "6379"}, "redis://a", False),
        ({"REDIS_URL": "redis://a", "REDIS_HOST": "b"}, "redis://a", True),
        ({"REDIS_URL": "redis://a", "REDIS_PORT": "7"}, "redis://a", True),
    ],
)
def test_where_the_store_is(load: Any, environ: dict[str, str], url: str | None, warns: bool) -> None:
    config = load("", **environ)
    assert (config.redis.url.get_secret_value() if config.redis.url else None) == url
    assert bool(config.warnings) == warns


def test_the_environments_store_goes_over_the_files(load: Any) -> None:
    assert load("redis: {url: redis://file}", REDIS_HOST="env").redis.url.get_secret_value() == "redis://env:6379"


# --- variables in the file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "environ", "value"),
    [
        ("a", {}, "a"),
        ("${V}", {"V": "x"}, "x"),
        ("p/${V}/q${W}", {"V": "x", "W": "y"}, "p/x/qy"),
        ("${V:-d}", {}, "d"),
        ("${V:-d}", {"V": ""}, "d"),
        ("${V:-d}", {"V": "x"}, "x"),
        ("a$${V}", {}, "a${V}"),
        ("$V", {"V": "x"}, "$V"),
    ],
)
def test_variables(load: Any, written: str, environ: dict[str, str], value: str) -> None:
    assert load(f'storage: {{url: "{written}"}}', **environ).storage.url == value


def test_a_variable_may_give_a_number_a_truth_value_or_nothing(load: Any) -> None:
    config = load("server: {port: '${P:-4000}'}\nauth: {anonymous_jobs: '${A}', issuer: '${I:-}'}", A="true")
    assert (config.server.port, config.auth.anonymous_jobs, config.auth.issuer) == (4000, True, None)


def test_an_unset_variable_names_key_and_variable(refused: Any) -> None:
    assert refused("server: {port: '${PORT}'}\nstorage:\n  url: s3://${BUCKET}/x\n") == [
        "config.yaml:1:17: server.port: the environment variable PORT is not set; set it, or write ${PORT:-default}",
        "config.yaml:3:13: storage.url: the environment variable BUCKET is not set; set it, or write ${BUCKET:-default}",
    ]


def test_a_variable_that_is_none(refused: Any) -> None:
    assert refused("storage: {url: '${1}'}") == ["config.yaml:1:17: storage.url: '${1}' is not a variable; write ${NAME} or ${NAME:-default}"]


def test_variables_do_not_expand_in_workflows(load: Any) -> None:
    text = "workflows: {w: {steps: {a: {queue: notifications, with: {x: '${HOME} ${{ input.a }}'}}}}}"
    assert load(text, HOME="/root").workflows["w"]["steps"]["a"]["with"] == {"x": "${HOME} ${{ input.a }}"}


# --- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sever: {}", "config.yaml:1:1: sever: unknown key 'sever'; did you mean 'server'?"),
        ("server: {prot: 1}", "config.yaml:1:10: server.prot: unknown key 'prot'; did you mean 'port'?"),
        ("server: {port: 70000}", "config.yaml:1:16: server.port: should be less than or equal to 65535"),
        ("server: {port: true}", "config.yaml:1:16: server.port: should be a number"),
        ("server: 7", "config.yaml:1:9: server: should be a mapping (key: value)"),
        ("server: {body_limit: 64}", "config.yaml:1:22: server.body_limit: 64 is not a size; write a number with a unit"),
        ("retention: {runs: 30}", "config.yaml:1:19: retention.runs: 30 is not a duration; write a number with a unit"),
        ("redis: {url: 'http://:hunter2@h'}", "config.yaml:1:15: redis.url: should begin with redis://, rediss:// or unix://"),
        ("redis: {prefix: 'a b'}", "config.yaml:1:18: redis.prefix: should match ^[A-Za-z0-9._-]{1,64}$"),
        ("queues: []", "config.yaml:1:9: queues: should be a mapping (key: value)"),
        ("queues: {x: {concurency: 1}}", "config.yaml:1:14: queues.x.concurency: unknown key 'concurency'; did you mean 'concurrency'?"),
        ("queues: {x: {processors: {j: 'no path'}}}", "config.yaml:1:26: queues.x.processors: j: 'no path' is no processor; write package.module"),
        ("auth: {anonymous_jobs: yes}", "config.yaml:1:24: auth.anonymous_jobs: should be true or false (yes, no"),
        ("auth: {jwks_url: 'https://x/jwks'}", "config.yaml:1:7: auth: jwks_url needs RS256 or ES256 in algorithms"),
        ("auth: {algorithms: [RS256]}", "config.yaml:1:7: auth: RS256 in algorithms needs jwks_url"),
        ("notifications: {mail: 'x://'}", "config.yaml:1:17: notifications.mail: unknown key 'mail'; did you mean 'email'?"),
        ("webhooks: {allow_networks: [10.0.0.1/8]}", "config.yaml:1:28: webhooks.allow_networks: 10.0.0.1/8 has host bits set; write"),
        ("webhooks: {schedule: []}", "config.yaml:1:22: webhooks.schedule: should have at least one time"),
        ("webhooks: {endpoints: [{id: a, url: 'ftp://x', secret: s}]}", "config.yaml:1:38: webhooks.endpoints[0].url: should be http(s)://host/…"),
        ("webhooks: {endpoints: [{id: a b, url: 'http://x', secret: s}]}",
         "config.yaml:1:29: webhooks.endpoints[0].id: should match ^[A-Za-z0-9._-]{1,128}$"),
        ("webhooks: {endpoints: [{id: a, url: 'http://x'}]}", "config.yaml:1:24: webhooks.endpoints[0]: 'secret' is required"),
        ("webhooks: {endpoints: [&a {id: a, url: 'http://x', secret: s}, *a]}", "config.yaml:1:23: webhooks.endpoints: the id 'a' is used by more"),
        ("encryption_keys: [abc]", "config.yaml:1:18: encryption_keys: key 1 is not the base64 of 32 bytes; make one with: openssl rand -base64 32"),
        ("dev: true", "config.yaml:1:1: dev: unknown key 'dev': give --dev on the command line"),
        ("- a", "config.yaml:1:1: a configuration should be a mapping (server, redis, queues, workflows, …)"),
        ("uploads: {workflow: nope}", "config.yaml:1:21: uploads.workflow: there is no workflow 'nope'"),
        ("workflows: {w: {steps: {a: {queue: x}}}}", "config.yaml:1:36: workflows.w.steps.a.queue: there is no queue 'x'; known: document"),
    ],
)  # fmt: skip
def test_mistakes_in_the_file(refused: Any, text: str, said: str) -> None:
    (line,) = refused(text)
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HOOKLINE_PORT": "x"}, "HOOKLINE_PORT: should be a valid integer, unable to parse string as an integer"),
        ({"REDIS_PORT": "x"}, "REDIS_PORT: 'x' is not a port (1 to 65535)"),
        ({"REDIS_URL": "http://x"}, "REDIS_URL: should begin with redis://, rediss:// or unix://"),
        ({"REDIS_URL": "redis://a:b", "REDIS_HOST": "a"}, "REDIS_URL: its port should be a number up to 65535"),
        ({"REDIS_URL": "redis+sentinel://:hunter2@a:1,b:c/mymaster"}, "REDIS_URL: should be redis+sentinel://[user:password@]host:port,host:port/ser"),
        ({"REDIS_URL": "rediss+sentinel://a:1,b:2"}, "REDIS_URL: should be rediss+sentinel://[user:password@]host:port,host:port/service[/db]"),
        ({"HOOKLINE_LOG_FORMAT": "xml"}, "HOOKLINE_LOG_FORMAT: should be 'json' or 'console'"),
        ({"HOOKLINE_ENCRYPTION_KEYS": f"{KEY},topsecret"}, "HOOKLINE_ENCRYPTION_KEYS: key 2 is not the base64 of 32 bytes"),
        ({"BULLMQ_DEFAULT_JOB_OPTIONS": "[]"}, 'BULLMQ_DEFAULT_JOB_OPTIONS: should be an object such as {"attempts": 3, "removeOnComplete": 100}'),
        ({"BULLMQ_DEFAULT_JOB_OPTIONS": '{"atempts": 3}'}, "BULLMQ_DEFAULT_JOB_OPTIONS.atempts: unknown option 'atempts'; did you mean 'attempts'?"),
        ({"BULLMQ_DEFAULT_JOB_OPTIONS": '{"attempts": true}'}, "BULLMQ_DEFAULT_JOB_OPTIONS.attempts: should be a whole number from 1 to 100"),
        ({"BULLMQ_DEFAULT_JOB_OPTIONS": '{"removeOnFail": "5"}'}, "BULLMQ_DEFAULT_JOB_OPTIONS.removeOnFail: should be a number of jobs to keep"),
        ({"BULLMQ_DEFAULT_JOB_OPTIONS": '{"backoff": {"type": "linear"}}'}, 'BULLMQ_DEFAULT_JOB_OPTIONS.backoff: should be ms, or {"type": "fixed"'),
    ],
)  # fmt: skip
def test_mistakes_in_the_environment_name_the_variable(refused: Any, environ: dict[str, str], said: str) -> None:
    # The file sets the same keys correctly: the complaint must not point there.
    (line,) = refused("server: {port: 1}\nredis: {url: redis://x}\nlog_format: json", **environ)
    assert line.startswith(said)


def test_options_that_cannot_be_honoured_are_a_warning(load: Any) -> None:
    warnings = load("", BULLMQ_DEFAULT_JOB_OPTIONS='{"delay": 5, "removeOnFail": {"count": 3, "age": 60}}').warnings
    assert len(warnings) == 2
    assert "delay has no effect" in warnings[0]
    assert "not removed by age" in warnings[1]


def test_a_mistake_on_the_command_line_names_it(refused: Any) -> None:
    assert refused("", overrides={"server": {"port": 99999}}) == ["server.port (command line): should be less than or equal to 65535"]


def test_every_mistake_is_told_at_once(refused: Any) -> None:
    text = "server: {prot: 1}\nauth: {jwt_secret: '${S}'}\nworkflows:\n  w: {steps: {a: {queue: notificatons}}}\nuploads: {workflow: v}\n"
    assert [line.split(": ")[0] for line in refused(text, HOOKLINE_PORT="x")] == [
        "config.yaml:2:21", "HOOKLINE_PORT", "config.yaml:1:10", "config.yaml:4:26", "config.yaml:5:21",
    ]  # fmt: skip


# --- secrets --------------------------------------------------------------------------------------------------------------


def test_secrets_that_are_missing() -> None:
    with pytest.raises(ConfigError) as caught:
        configfile.require_secrets(configfile.load(None, {}))
    assert [fault.path for fault in caught.value.faults] == ["auth.jwt_secret", "encryption_keys"]
    assert "HOOKLINE_JWT_SECRET" in str(caught.value)
    assert "openssl rand -base64 32" in str(caught.value)


@pytest.mark.parametrize("by", ["secret", "key set", "dev"])
def test_secrets_that_are_enough(load: Any, by: str) -> None:
    text = "auth: {jwks_url: 'https://x/jwks', algorithms: [RS256]}" if by == "key set" else ""
    environ = {} if by == "dev" else {"HOOKLINE_ENCRYPTION_KEYS": KEY}
    if by == "secret":
        environ["HOOKLINE_JWT_SECRET"] = "s" * 32
    configfile.require_secrets(load(text, dev=by == "dev", **environ))


def test_no_secret_in_a_repr_or_a_complaint(load: Any, refused: Any) -> None:
    text = (
        "notifications: {email: 'mailtos://u:hunter2@h'}\nauth: {api_keys: {go: hk_hunter2}}\n"
        "webhooks: {endpoints: [{id: a, url: 'http://x', secret: hunter2}]}"
    )
    environ = {"HOOKLINE_JWT_SECRET": "hunter2", "REDIS_URL": "redis://:hunter2@h", "HOOKLINE_ENCRYPTION_KEYS": KEY}
    config = load(text, **environ)
    assert "hunter2" not in repr(config) + str(config) + str(config.model_dump())
    assert KEY not in repr(config)
    wrong = "auth: {jwt_secret: [hunter2]}\nredis: {url: 'hunter2'}\nencryption_keys: [hunter2, {a: hunter2}]\nnotifications: {email: [hunter2]}"
    assert "hunter2" not in " ".join(refused(wrong))


def test_an_api_key_that_is_none_is_refused_without_repeating_it(refused: Any) -> None:
    (said,) = refused("auth:\n  api_keys: {files: hunter2}")
    assert "auth.api_keys.files: should begin with hk_" in said
    assert "hunter2" not in said


# --- the schema for editors -----------------------------------------------------------------------------------------------


def test_the_schema_is_valid_and_fits_the_shipped_file() -> None:
    schema = json.loads(json.dumps(configfile.schema()))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert list(validator.iter_errors(yaml.safe_load((ROOT / "config.yaml").read_text()))) == []
    assert list(validator.iter_errors({"server": {"port": "${PORT}"}, "retention": {"runs": "30d"}})) == []


@pytest.mark.parametrize(
    "wrong",
    [{"sever": {}}, {"dev": True}, {"server": {"port": "x"}}, {"retention": {"runs": "30"}}, {"workflows": {"w": {"steps": {"a": {"need": []}}}}}],
)
def test_the_schema_marks_mistakes(wrong: Any) -> None:
    assert list(Draft202012Validator(configfile.schema()).iter_errors(wrong))

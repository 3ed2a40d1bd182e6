"""Where the server's settings come from, and what is said of bad ones."""

import pytest
from typer.testing import CliRunner

from small_doge.cli.main import app
from small_doge.utils.errors import UserError
from small_doge.webui import serving
from small_doge.webui.settings import ENVIRONMENT, ServeSettings, read_environment, read_settings_file


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts the server by its command line in an empty folder, and gives what it would run with."""
    monkeypatch.chdir(tmp_path)
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    started = []
    monkeypatch.setattr(serving, "run_server", lambda settings, tell, ports: started.append((settings, ports)))

    def run(*words):
        done = CliRunner().invoke(app, ["serve", *words])
        if done.exception is not None:
            raise done.exception
        return started.pop()

    return run


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SMALLDOGE_PORT", "abc", "SMALLDOGE_PORT='abc' must be a whole number"),
        ("SMALLDOGE_PORT", "99999", "SMALLDOGE_PORT=99999 must be from 0 to 65535"),
        ("MAX_TOKENS", "-3", "MAX_TOKENS=-3 must be at least 1"),
    ],
)
def test_a_bad_environment_variable_is_named(name, value, words):
    with pytest.raises(UserError, match=words):
        read_environment({name: value})


def test_the_guides_variables_are_read():
    given = {"SMALLDOGE_MODEL": "a,b", "DATABASE_URL": "sqlite:////srv/chats.db", "MODEL_CACHE_DIR": "models"}
    assert read_environment(given) == {"models": ("a", "b"), "chats": "/srv/chats.db", "models_dir": "models"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot: 1", "port"),
        ("port: x", "port='x' must be a whole number"),
        ("num_slots: 0", "num_slots=0 must be at least 1"),
        ("request-timeout: .nan", "must be at least"),
        ("api_key: 123", "write it in quotes"),
        ("sampling: {temperatur: 1}", "sampling: .*temperature"),
        ("debug: 1", "must be true or false"),
        ("- port", "must hold settings"),
        ("port: [", "can't be read"),
    ],
)
def test_a_bad_file_is_explained(tmp_path, text, words):
    (tmp_path / "serve.yaml").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_settings_file(tmp_path / "serve.yaml")
    assert "serve.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("max_new_tokens: 5", "max_new_tokens=5 .*set default_max_tokens"),
        ("logprobs: 2", "logprobs=2 .*with each request"),
        ("prompt_logprobs: 2", "prompt_logprobs=2 .*with each request"),
        ("json_schema: {type: object}", "json_schema=.*with each request"),
        ("grammar: 'start: /a/'", "grammar='start: /a/' .*with each request"),
    ],
)
def test_a_sampling_option_of_single_requests_is_refused_as_a_default(tmp_path, option, remedy):
    (tmp_path / "serve.yaml").write_text(f"sampling: {{temperature: 0.5, {option}}}")
    with pytest.raises(UserError, match=f"sampling: {remedy}"):
        read_settings_file(tmp_path / "serve.yaml")


@pytest.mark.parametrize("given", [{"api_key": "ä"}, {"api_key": ""}, {"api_key": "key "}, {"port": -1}])
def test_bad_settings_are_refused(given):
    with pytest.raises(UserError, match=next(iter(given))):
        ServeSettings(**given)


@pytest.mark.parametrize("backend", ["http://a:1", "https://a.example/doge", "http://[::1]:9/", "HTTP://10.0.0.1"])
def test_the_page_alone_takes_the_address_of_a_server(backend):
    assert ServeSettings(page_only=True, backend=backend).backend == backend


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"page_only": True}, "--backend http://"),
        ({"backend": "http://a:1"}, "--frontend-only"),
        ({"page_only": True, "backend": "127.0.0.1:8000"}, "such as http://127"),
        ({"page_only": True, "backend": "http://a; script-src *"}, "such as http://127"),
        ({"page_only": True, "backend": "http://a\nX: y"}, "such as http://127"),
        ({"cors_origins": ["https://example.org/"]}, "no path"),
        ({"cors_origins": ["example.org"]}, "scheme"),
        ({"cors_origins": ["HTTP://Example.org"]}, "lower case"),
        ({"cors_origins": ["https://Example.org"]}, "lower case"),
    ],
)
def test_addresses_that_would_never_match_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        ServeSettings(**given)


def test_another_address_needs_a_key_unless_the_page_stands_alone():
    with pytest.raises(UserError, match="--no-api-key"):
        ServeSettings(host="0.0.0.0")
    page = {"page_only": True, "backend": "http://127.0.0.1:8000"}
    for given in ({"api_key": "k"}, {"no_api_key": True}, page):
        assert ServeSettings(host="0.0.0.0", **given).host == "0.0.0.0"


def test_flags_go_before_the_environment_and_that_before_the_file(start, tmp_path, monkeypatch):
    (tmp_path / "serve.yaml").write_text("port: 1\nmodel: a\nhost: localhost\nmax_queue: 5")
    monkeypatch.setenv("SMALLDOGE_PORT", "2")
    monkeypatch.setenv("SMALLDOGE_MODEL", "b")
    settings, _ = start("--port", "3")
    assert (settings.port, settings.models, settings.host, settings.max_queue) == (3, ("b",), "localhost", 5)


def test_a_sampling_flag_leaves_the_files_other_options(start, tmp_path):
    (tmp_path / "other.yaml").write_text("model: a\nsampling: {temperature: 0.7, top_k: 5}")
    settings, _ = start("--config", "other.yaml", "--top-k", "7")
    assert (settings.sampling.temperature, settings.sampling.top_k) == (0.7, 7)


def test_no_model_and_no_demo_says_what_to_do(start):
    with pytest.raises(UserError, match="small-doge demo"):
        start()


def test_the_guides_options_are_taken(start):
    settings, ports = start(
        "a", "--backend-host", "localhost", "--backend-port", "0", "--frontend-port", "7861", "--dev"
    )
    assert (settings.host, settings.port, ports, settings.debug) == ("localhost", 0, [7861], True)
    settings, _ = start("--frontend-only", "--backend-host", "::1", "--backend-port", "9")
    assert (settings.port, settings.backend) == (7860, "http://[::1]:9")
    settings, _ = start("--frontend-only", "--frontend-host", "::1", "--frontend-port", "9")
    assert (settings.host, settings.port, settings.backend) == ("::1", 9, "http://127.0.0.1:8000")
    settings, _ = start("a", "--backend-only")
    assert settings.cors_origins == ["http://127.0.0.1:7860", "http://localhost:7860"]


def test_the_page_alone_listens_where_it_is_told(start):
    alone = ("--frontend-only", "--backend", "http://a:1")
    for words, address in (
        ((), ("127.0.0.1", 7860)),
        (("--host", "::1", "--port", "9"), ("::1", 9)),
        (("--host", "::1", "--frontend-port", "9"), ("::1", 9)),
        (("--frontend-host", "localhost", "--host", "::1", "--port", "9"), ("localhost", 9)),
    ):
        settings, _ = start(*alone, *words)
        assert (settings.host, settings.port, settings.backend) == (*address, "http://a:1")

"""What importing guardrail costs: no driver, no loader and no HTTP client that is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "fastapi httpx jwt limits litellm lmdb maxminddb msgspec pydantic redis rich typer yaml "
    "zstandard"
).split()
POLICY = (
    "guardrail: 1\npolicy: p\nrules: [{id: a, when: always, rate: {requests: 1/day, key: global}}]"
)


def loaded_after(*statements: str) -> set[str]:
    """Return which of the heavy packages a fresh interpreter has loaded after some statements."""
    program = ";".join(["import sys", *statements, "print(*sys.modules)"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    )
    return set(HEAVY) & set(done.stdout.split())


def test_the_package_alone_loads_no_third_party():
    assert loaded_after("import guardrail; guardrail.Guard, guardrail.AsyncGuard") == set()


def test_a_guard_in_memory_loads_no_driver_of_another_store(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    load = f"import guardrail; guardrail.Guard.load({str(tmp_path)!r}, store='memory://')"

    assert not loaded_after(load) & {"redis", "lmdb", "httpx", "jwt", "msgspec", "typer"}


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
def test_a_door_without_a_service_to_ask_loads_no_client_nor_command_line(door, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    load = (
        f"from guardrail.{door} import GuardrailMiddleware as Door",
        f"Door(print, policies={str(tmp_path)!r}, directory=None)",
    )

    assert not loaded_after(*load) & {"redis", "lmdb", "httpx", "jwt", "rich", "typer"}


@pytest.mark.parametrize("uri", ["lmdb://{folder}", "redis://127.0.0.1:1"])
def test_a_store_whose_driver_is_missing_says_what_to_install(uri, tmp_path):
    scheme = uri.partition(":")[0]
    program = (
        f"import sys; sys.modules[{scheme!r}] = None\n"
        "import guardrail\n"
        "from guardrail.stores.opening import open_store\n"
        f"try: open_store({uri.format(folder=tmp_path)!r}, [b'k' * 32])\n"
        "except guardrail.SettingError as problem: print(problem)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (
        f"needs `{scheme}`, which is not installed: pip install 'guardrail-engine[{scheme}]'"
        in (done.stdout)
    ), done.stderr


def test_a_directory_of_tokens_without_its_package_says_what_to_install(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    tokens = {"issuer": "https://i.test", "audience": "a", "jwks": "https://i.test/keys"}
    program = (
        "import sys; sys.modules['jwt'] = None\n"
        "import guardrail\n"
        "from guardrail.http.settings.build import configure\n"
        f"options = {{'policies': {str(tmp_path)!r}, 'environ': {{}}, 'directory': {tokens!r}}}\n"
        "try: configure(options)\n"
        "except guardrail.SettingError as problem: print(problem)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "pip install 'guardrail-engine[jwt]'" in done.stdout, done.stderr


def test_the_middleware_loads_no_package_of_an_extra():
    found = loaded_after("import guardrail.asgi, guardrail.wsgi")

    assert not found & {"fastapi", "jwt", "litellm", "lmdb", "redis"}

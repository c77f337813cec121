"""openapi.json as redocly and openapi-typescript read it: a linter, and a generator whose types a program is compiled with."""

import os
import subprocess
import sys

import pytest

from conftest import SOCKET

NPM = os.path.join(os.path.dirname(os.path.dirname(sys.executable)), "npm", "node_modules")
HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with npm's packages and the document."""
    place = tmp_path_factory.mktemp("typescript")
    (place / "node_modules").symlink_to(NPM)
    document = subprocess.run(
        ["curl", "--silent", "--fail", "--unix-socket", SOCKET, "http://localhost/openapi.json"], capture_output=True, check=True
    )
    (place / "openapi.json").write_bytes(document.stdout)
    return place


def run(place, program, *arguments):
    """What a program says that must succeed."""
    environment = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    done = subprocess.run(
        [program, *arguments], cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_redocly_finds_no_error(place):
    run(place, f"{NPM}/.bin/redocly", "lint", "openapi.json")


def test_a_program_with_the_generated_types_works(place, api, guest):
    run(place, f"{NPM}/.bin/openapi-typescript", "openapi.json", "--output", "schema.d.ts")
    (place / "use.mts").write_bytes(open(os.path.join(HERE, "use.mts"), "rb").read())
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck"]
    run(place, f"{NPM}/.bin/tsc", *options, "use.mts")
    said = run(place, "node", "use.mjs", SOCKET, guest).splitlines()
    assert said == ["1 1400", "ACTIVE 192.0.2.2", "ACTIVE active true", "true", "202", "no_such_port"]

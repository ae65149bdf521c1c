"""A simulator for one test: `switchboard-sim serve` on free loopback ports, and what it says of itself.

The program fails by itself when a rule was broken, so a test need not ask; one that breaks rules on purpose takes the
violations away with `take_violations`.
"""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCENARIO = ROOT / "tests/simulator/scenarios/demo.yaml"
ACCOUNT_SID = "AC00000000000000000000000000000001"
AUTH_TOKEN = "simulated-auth-token"
MODEL_KEY = "simulated-model-key"

READY = re.compile(r"ready twilio=(?P<twilio>\S+) model=(?P<model>\S+)/realtime\n")


class Simulator:
    """Runs from entering to leaving."""

    def __init__(self, edge=None, extra="", numbers=()):
        """`edge` is `https://public=http://upstream`; `extra` is added to the demo's scenario; `numbers` are more."""
        self._edge = edge
        self._extra = extra
        self._numbers = numbers

    def __enter__(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as scenario:
            scenario.write(SCENARIO.read_text() + self._extra)
        self._scenario = scenario.name
        command = [os.environ["SWITCHBOARD_SIM"], "--log", "error", "serve", "--scenario", scenario.name]
        command += ["--twilio-addr", "127.0.0.1:0", "--model-addr", "127.0.0.1:0"]
        if self._edge:
            command += ["--edge", self._edge]
        command += [f"--number={number}" for number in self._numbers]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        ready = READY.fullmatch(line)
        if ready is None:
            self._process.kill()
            raise AssertionError(f"the simulator did not begin: {line!r}")
        self.twilio, self.model = ready["twilio"], ready["model"]
        return self

    def __exit__(self, kind, _value, _trace):
        os.unlink(self._scenario)
        self._process.terminate()
        said, _ = self._process.communicate(timeout=30)
        if kind is None and self._process.returncode != 0:
            raise AssertionError(f"the simulator counted broken rules:\n{said}")

    def control(self, method, path, body=None):
        """The control API's answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.twilio + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def take_violations(self):
        """Names of the rules broken until now, which are forgotten then."""
        rules = [violation["rule"] for violation in self.control("GET", "/_sim/violations")["violations"]]
        self.control("DELETE", "/_sim/violations")
        return rules

"""What the Python programs share: the address to ask, and how they tell what came."""

import hashlib
import json
import sys

BASE = sys.argv[1]
PAYLOAD = b"x" * 100_000
STEPS = [
    ("get", "GET", "/get"),
    ("post", "POST", "/echo"),
    ("big", "GET", "/big"),
    ("keep-1", "GET", "/keep/1"),
    ("keep-2", "GET", "/keep/2"),
    ("healed", "GET", "/healed"),
]


def body_of(method):
    return PAYLOAD if method == "POST" else None


def say(step, status, body):
    line = {"step": step, "status": status, "sha256": hashlib.sha256(body).hexdigest()}
    print(json.dumps(line), flush=True)

#!/usr/bin/env python3
"""A worker that cannot use the proxy: it leases a token for each request and sends the request itself.

    CUPBEARER_ADMIN=http://127.0.0.1:8081 CUPBEARER_CLIENT=worker:PASSWORD \
        python3 lease-worker.py supplier https://api.example.com/items?page=1 ...

Python's standard library is enough. See docs/lease-api.md.
"""

import base64
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

TRIES = 3
# What tells why an answer refuses the token.
TELLING = ("Retry-After", "RateLimit", "WWW-Authenticate")

ADMIN = os.environ["CUPBEARER_ADMIN"]
AUTHORIZATION = "Basic " + base64.b64encode(os.environ["CUPBEARER_CLIENT"].encode()).decode()
# The admin API is reached directly, whatever HTTP_PROXY says.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(path, body):
    """One POST to the admin API; waits where it says when to come back."""
    while True:
        request = urllib.request.Request(
            ADMIN + path, json.dumps(body).encode(), {"Authorization": AUTHORIZATION}
        )
        try:
            with OPENER.open(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            wait = error.headers["Retry-After"]
            if error.code != 503 or wait is None:
                raise SystemExit(f"{path}: {error.code} {error.read().decode()}") from None
            time.sleep(int(wait))


def connect(target, egress):
    """A connection that leaves by the lease's egress, or none at all."""
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    way = urllib.parse.urlsplit(egress["url"])
    if way.scheme == "direct":
        return kind(target.hostname, target.port, timeout=60)
    if way.scheme == "local":
        return kind(target.hostname, target.port, timeout=60, source_address=(way.hostname, 0))
    if way.scheme != "http":
        raise OSError(f"this example cannot leave by {way.scheme}:, the egress {egress['name']}")
    connection = kind(way.hostname, way.port or 80, timeout=60)
    headers = {}
    if way.username is not None:
        user = urllib.parse.unquote(way.username) + ":" + urllib.parse.unquote(way.password or "")
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    connection.set_tunnel(target.hostname, target.port, headers)
    return connection


def send(url, lease):
    """One GET with the leased token."""
    target = urllib.parse.urlsplit(url)
    query = [target.query] if target.query else []
    headers = dict(lease["headers"])
    if lease["header"]:
        headers[lease["header"]["name"]] = lease["header"]["value"]
    if lease["query"]:
        query.append(urllib.parse.urlencode([(lease["query"]["name"], lease["query"]["value"])]))
    path = (target.path or "/") + ("?" + "&".join(query) if query else "")
    connection = connect(target, lease["egress"])
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def fetch(pool, url):
    """Lease, send, report; again where the report has healed what was wrong."""
    path = urllib.parse.urlsplit(url).path or "/"
    for _ in range(TRIES):
        lease = call(f"/api/pools/{pool}/leases", {"method": "GET", "path": path})
        report = f"/api/leases/{lease['lease']}"
        try:
            status, headers, body = send(url, lease)
        except (OSError, http.client.HTTPException):
            call(report, {"verdict": "unknown"})
            raise
        telling = {name: headers[name] for name in TELLING if headers[name] is not None}
        end = call(report, {"status": status, "headers": telling})
        print(status, end["verdict"], lease["credential"], url)
        if end["verdict"] not in ("expired", "limited"):
            break
    return status, body


if __name__ == "__main__":
    pool, *urls = sys.argv[1:]
    sys.exit(0 if all(fetch(pool, url)[0] == 200 for url in urls) else 1)

import httpx
from steps import BASE, STEPS, body_of, say

with httpx.Client() as client:
    for step, method, path in STEPS:
        response = client.request(method, BASE + path, content=body_of(method))
        say(step, response.status_code, response.content)

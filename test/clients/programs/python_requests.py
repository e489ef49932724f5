import requests
from steps import BASE, STEPS, body_of, say

with requests.Session() as session:
    for step, method, path in STEPS:
        response = session.request(method, BASE + path, data=body_of(method))
        say(step, response.status_code, response.content)

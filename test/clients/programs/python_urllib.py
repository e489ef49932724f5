import urllib.request
from steps import BASE, PAYLOAD, say


def ask(step, path, data=None):
    with urllib.request.urlopen(BASE + path, data) as response:
        say(step, response.status, response.read())


ask("get", "/get")
ask("post", "/echo", PAYLOAD)
ask("big", "/big")
ask("healed", "/healed")

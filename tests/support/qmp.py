# SPDX-License-Identifier: MIT
"""qmp.py - a QMP client on the socket "mon" in the current directory; runs the script it is given.

The script has q(command, arguments) -> the answer or the error, event(name) -> its data, and
block(i) -> what query-block says of drive i.
"""
import json, os, socket, sys, time
slow = int(os.environ.get("SLOW", 1))
s = socket.socket(socket.AF_UNIX)
for _ in range(1000 * slow):
    try:
        s.connect("mon")
        break
    except OSError:
        time.sleep(0.05)
f = s.makefile("r")
events = []
def get():
    line = f.readline()
    assert line, "the monitor closed the connection"
    return json.loads(line)
def q(command, **arguments):
    words = {"execute": command, "id": [command]}
    if arguments:
        words["arguments"] = arguments
    s.sendall(json.dumps(words).encode())  # without an end of line: clients may
    while True:
        a = get()
        if "event" not in a:
            break
        events.append(a)
    assert a["id"] == [command], a
    return a["return"] if "return" in a else a["error"]
def event(name):
    while True:
        for e in events:
            if e["event"] == name:
                events.remove(e)
                return e.get("data")
        events.append(get())
def cache():
    return q("query-block")[0]["x-write-cache"]
def stat(name):
    return q("query-blockstats")[0]["stats"][name]
def block(i=0):
    return q("query-block")[i]
def wait_for(what):
    for _ in range(1500 * slow):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be")
assert "QMP" in get()
assert q("query-status")["class"] == "CommandNotFound"
assert q("qmp_capabilities") == {}
exec(sys.argv[1])

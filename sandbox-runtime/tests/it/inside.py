#!/usr/bin/python3
"""Answers a test's questions about the place it runs in, until the test hangs up."""

import json
import socket

channel = socket.socket(socket.AF_UNIX)
channel.connect("/.sandbox/socket")
lines = channel.makefile("rw")
for line in lines:
    code = json.loads(line)
    scope = {}
    try:
        try:
            answer = eval(compile(code, "question", "eval"), scope)
        except SyntaxError:
            exec(compile(code, "question", "exec"), scope)
            answer = scope["answer"]
        reply = {"answer": answer}
    except BaseException as error:
        reply = {"error": repr(error)}
    lines.write(json.dumps(reply) + "\n")
    lines.flush()

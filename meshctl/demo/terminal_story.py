"""Two agents exchange messages, with commands."""

from __future__ import annotations

from meshctl.demo.stage import Stage


def play(stage: Stage) -> None:
    stage.say("Two agents. The first command starts the daemon, and the daemon its own store:")
    stage.show("register", "alice", "--role", "writes code")
    stage.show("register", "bob", "--role", "reviews it")

    stage.say("bob waits for mail; alice sends some:")
    waiting = stage.begin("listen", "bob", "--timeout", "30")
    stage.show("send", "bob", "the build is green", "--from", "alice")
    stage.end(waiting, "[DIRECT from alice] the build is green")

    stage.say("alice asks and waits for the answer:")
    asking = stage.begin("request", "bob", "which branch shall I merge?", "--from", "alice", "--timeout", "30")
    hint = stage.show("listen", "bob", "--timeout", "30")  # "… waits for a reply: meshctl reply ID TEXT --from bob"
    stage.show("reply", hint.partition("meshctl reply ")[2].split()[0], "main, please", "--from", "bob")
    stage.end(asking, "main, please")

    stage.say("To everyone, and what bob's notify log says of it all:")
    stage.show("broadcast", "lunch", "--from", "alice")
    stage.show("inbox", "bob")
    path, _ = stage.run("path", "notify", "bob")
    with open(path.strip(), encoding="utf-8") as file:
        stage.write(file.read())

    stage.say("Who is there:")
    stage.show("ping", "bob", "--from", "alice")
    stage.show("who")

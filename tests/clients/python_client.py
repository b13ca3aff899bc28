"""python-socketio, the client of Python programs, plain and asynchronous, with every choice of transports.

Arguments as those of the Node programs: three addresses HOST:PORT, of which the first is used. Pings should come often.
"""

import asyncio
import faulthandler
import queue
import sys

import socketio

URL = f"http://{sys.argv[1]}"
AUTH = {"token": "123", "nested": {"é": [1, None]}}
ARGS = ["é 漢字 😀", {"file": b"\x00\x01\xff", "n": 1.5}, b""]
MESSAGES = 200
# Said at a time: over polling this client ends its session when an answer has more than 16 packets, whoever the server
# is.
AT_A_TIME = 10
LIMIT_S = 20

# What the client is told, and what it ends with. None: whatever it prefers.
TRANSPORTS = {
    "default": (None, "websocket"),
    "polling": (["polling"], "polling"),
    "websocket": (["websocket"], "websocket"),
}

# A client that hangs shows where.
faulthandler.dump_traceback_later(240, exit=True)


def plain(namespace, transports, ends):
    """The client with threads, over `requests` and `websocket-client`."""
    client = socketio.Client(reconnection=False)
    auth, back = queue.Queue(), queue.Queue()
    ended = []
    client.on("auth", auth.put, namespace=namespace)
    client.on("message-back", lambda *args: back.put(list(args)), namespace=namespace)
    client.on("disconnect", lambda reason: ended.append(reason), namespace=namespace)
    client.connect(URL, auth=AUTH, namespaces=[namespace], transports=transports)
    assert auth.get(timeout=LIMIT_S) == AUTH
    assert client.transport() == ends, client.transport()

    client.emit("message", tuple(ARGS), namespace=namespace)
    got = back.get(timeout=LIMIT_S)
    assert got == ARGS, got
    got = client.call("message-with-ack", tuple(ARGS), namespace=namespace, timeout=LIMIT_S)
    assert got == tuple(ARGS), got

    for first in range(0, MESSAGES, AT_A_TIME):
        some = range(first, first + AT_A_TIME)
        for n in some:
            client.emit("message", n, namespace=namespace)
        got = [back.get(timeout=LIMIT_S) for _ in some]
        # Each event has a thread of its own in this client: their order is not the wire's.
        assert sorted(got) == [[n] for n in some], got

    # Some pings later it is still there.
    for beat in range(4):
        client.sleep(0.3)
        assert client.call("message-with-ack", beat, namespace=namespace, timeout=LIMIT_S) == beat
    assert ended == [], ended
    client.disconnect()


async def asynchronous(namespace, transports, ends):
    """The client of asyncio, over `aiohttp`."""
    client = socketio.AsyncClient(reconnection=False)
    auth, back = asyncio.Queue(), asyncio.Queue()
    ended = []
    client.on("auth", auth.put, namespace=namespace)
    client.on("message-back", lambda *args: back.put_nowait(list(args)), namespace=namespace)
    client.on("disconnect", lambda reason: ended.append(reason), namespace=namespace)
    await client.connect(URL, auth=AUTH, namespaces=[namespace], transports=transports)
    assert await auth.get() == AUTH
    assert client.transport() == ends, client.transport()

    await client.emit("message", tuple(ARGS), namespace=namespace)
    got = await back.get()
    assert got == ARGS, got
    got = await client.call("message-with-ack", tuple(ARGS), namespace=namespace, timeout=LIMIT_S)
    assert got == tuple(ARGS), got

    for first in range(0, MESSAGES, AT_A_TIME):
        some = range(first, first + AT_A_TIME)
        for n in some:
            await client.emit("message", n, namespace=namespace)
        got = [await back.get() for _ in some]
        # A task of its own here.
        assert sorted(got) == [[n] for n in some], got

    for beat in range(4):
        await client.sleep(0.3)
        assert await client.call("message-with-ack", beat, namespace=namespace, timeout=LIMIT_S) == beat
    assert ended == [], ended
    await client.disconnect()


def refused(transports):
    """A namespace that does not exist."""
    client = socketio.Client(reconnection=False)
    try:
        client.connect(URL, namespaces=["/nowhere"], transports=transports)
    except socketio.exceptions.ConnectionError as error:
        assert "/nowhere" in str(error), error
    else:
        raise AssertionError("connected to a namespace that does not exist")
    finally:
        client.disconnect()


for name, (transports, ends) in TRANSPORTS.items():
    for namespace in ["/", "/custom"]:
        plain(namespace, transports, ends)
        print(f"ok      {name}, plain, {namespace}", flush=True)
        asyncio.run(asyncio.wait_for(asynchronous(namespace, transports, ends), 2 * LIMIT_S))
        print(f"ok      {name}, asynchronous, {namespace}", flush=True)
    refused(transports)
    print(f"ok      {name}, refused", flush=True)

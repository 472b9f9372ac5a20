"""pinger.py WS_URL GRPC_ADDR: a service by grpcio and its clients by websockets; prints one JSON line of what they saw."""

import asyncio
import json
import sys
from collections.abc import Callable

import grpc
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from websockets.asyncio.client import connect

from demo.v1 import demo_pb2 as demo
from trestle.v1 import bridge_pb2 as bridge
from trestle.v1 import bridge_pb2_grpc as bridge_grpc
from trestle.v1 import client_pb2 as client
from trestle.v1 import envelope_pb2 as envelope

PATIENCE = 10  # seconds for any one answer
CHANNEL = "live:news"


def news(text: str, number: int) -> envelope.Envelope:
    return envelope.Envelope(
        message_type="demo.v1.News", payload=demo.News(text=text, number=number).SerializeToString()
    )


class Pinger:
    """The service `pinger` on one Attach stream: replies to Ping; declines a Job as often as it asks, then does it."""

    def __init__(self, stub: bridge_grpc.BridgeStub):
        self.stream = stub.Attach()
        self.attempts: list[int] = []
        self.sessions: set[str] = set()
        self.pushed: asyncio.Future[bridge.PushStreamResponse] = asyncio.get_running_loop().create_future()

    async def attach(self) -> bridge.Attached:
        hello = bridge.Hello(service="pinger", instance="python-1", max_in_flight=8)
        await self.stream.write(bridge.ServiceFrame(hello=hello))
        first = await asyncio.wait_for(self.stream.read(), PATIENCE)
        assert first.HasField("attached"), first
        return first.attached

    async def serve(self) -> None:
        while (frame := await self.stream.read()) is not grpc.aio.EOF:
            match frame.WhichOneof("frame"):
                case "deliveries":
                    for delivery in frame.deliveries.deliveries:
                        await self.handle(delivery)
                case "pushed":
                    self.pushed.set_result(frame.pushed)
                case other:
                    raise AssertionError(f"unexpected {other}: {frame}")

    async def handle(self, delivery: bridge.Delivery) -> None:
        session = delivery.envelope.source.session
        self.sessions.add(session)
        match delivery.envelope.message_type:
            case "demo.v1.Ping":
                assert delivery.request
                ping = demo.Ping.FromString(delivery.envelope.payload)
                pong = demo.Pong(text=ping.text, by="python").SerializeToString()
                message = envelope.Envelope(message_type="demo.v1.Pong", payload=pong)
                reply = bridge.Reply(delivery_id=delivery.delivery_id, message=message)
                await self.stream.write(bridge.ServiceFrame(reply=reply))
            case "demo.v1.Job":
                job = demo.Job.FromString(delivery.envelope.payload)
                self.attempts.append(delivery.attempt)
                if delivery.attempt <= job.declines:
                    nack = bridge.Nack(delivery_id=delivery.delivery_id, delay=Duration(nanos=50_000_000))
                    await self.stream.write(bridge.ServiceFrame(nack=nack))
                    return
                await self.stream.write(bridge.ServiceFrame(ack=bridge.Ack(delivery_ids=[delivery.delivery_id])))
                push = bridge.PushRequest(target=bridge.Target(session=session), message=news(job.name, delivery.attempt))
                await self.stream.write(bridge.ServiceFrame(push=bridge.PushStreamRequest(seq=7, push=push, count=True)))
            case other:
                raise AssertionError(f"unexpected {other}")


class Client:
    """A WebSocket client of either subprotocol; what it gives back is a ServerFrame as canonical JSON, payloads open."""

    def __init__(self, socket, binary: bool):
        self.socket, self.binary = socket, binary
        self.last_id = 0
        self.kept: list[dict] = []

    async def ask(self, frame: dict) -> dict:
        self.last_id += 1
        frame = {"id": self.last_id, **frame}
        if self.binary:
            frames = json_format.ParseDict({"frames": [frame]}, client.ClientFrames())
            await self.socket.send(frames.SerializeToString())
        else:
            await self.socket.send(json.dumps(frame))
        return await self.take(lambda got: got.get("replyTo") == frame["id"])

    async def news(self) -> str:
        got = await self.take(lambda got: got.get("delivery", {}).get("messageType") == "demo.v1.News")
        payload = got["delivery"]["payload"]
        item = json_format.ParseDict(payload, demo.News()) if isinstance(payload, dict) else demo.News.FromString(payload)
        return f"{item.text} {item.number}"

    async def take(self, wanted: Callable[[dict], bool]) -> dict:
        async with asyncio.timeout(PATIENCE):
            while True:
                for got in self.kept:
                    if wanted(got):
                        self.kept.remove(got)
                        return got
                self.kept += self.frames(await self.socket.recv())

    def frames(self, message: str | bytes) -> list[dict]:
        if not self.binary:
            assert isinstance(message, str)
            frames = json.loads(message)
            return frames if isinstance(frames, list) else [frames]
        parsed = []
        for frame in client.ServerFrames.FromString(message).frames:
            parsed.append(json_format.MessageToDict(frame))
            if frame.HasField("delivery"):
                parsed[-1]["delivery"]["payload"] = frame.delivery.payload
        return parsed


async def main(url: str, address: str) -> dict:
    async with (
        grpc.aio.insecure_channel(address) as channel,
        connect(url, subprotocols=["trestle.v1.json"]) as text,
        connect(url, subprotocols=["trestle.v1.proto"]) as binary,
    ):
        stub = bridge_grpc.BridgeStub(channel)
        pinger = Pinger(stub)
        attached = await pinger.attach()
        serving = asyncio.create_task(pinger.serve())
        clients = {"json": Client(text, binary=False), "protobuf": Client(binary, binary=True)}
        json_client = clients["json"]

        session = (await json_client.ask({"connect": {}}))["connected"]["sessionId"]
        for each in clients.values():
            assert (await each.ask({"subscribe": {"channel": CHANNEL}}))["subscribed"]["channel"] == CHANNEL
        ping = {"messageType": "PING", "payload": {"text": "hi ☃"}}
        pong = await json_client.ask({"request": {"message": ping, "timeout": "5s"}})
        job = await json_client.ask({"message": {"messageType": "JOB", "payload": {"name": "done", "declines": 1}}})
        done = await json_client.news()
        counted = await asyncio.wait_for(pinger.pushed, PATIENCE)

        target = bridge.Target(channel=CHANNEL)
        push = await stub.Push(bridge.PushRequest(target=target, message=news("all", -1)), timeout=PATIENCE)
        try:
            nothing = envelope.Envelope(message_type="demo.v1.Nothing")
            await stub.Push(bridge.PushRequest(target=target, message=nothing), timeout=PATIENCE)
            refused = "OK"
        except grpc.aio.AioRpcError as error:
            refused = error.code().name
        seen = {
            "attached": sorted(kind.message_type for kind in attached.types),
            "pong": pong.get("reply", pong).get("payload"),
            "job": job.get("accepted", job),
            "attempts": pinger.attempts,
            "done": done,
            "counted": [counted.seq, counted.report.delivered, counted.report.counted],
            "pushed": push.report.delivered,
            "news": {name: await each.news() for name, each in clients.items()},
            "refused": refused,
            "source": pinger.sessions == {session},
        }
        await pinger.stream.done_writing()
        await asyncio.wait_for(serving, PATIENCE)
        return seen


print(json.dumps(asyncio.run(main(*sys.argv[1:]))))

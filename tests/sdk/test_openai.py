"""OpenAI's own SDK against the simulated model: every event is one the SDK declares, and has exactly its fields.

The SDK builds its types leniently, so that a missing or misspelt field would go unnoticed. Each message is therefore
validated again, strictly, against the type that the SDK declares for its name, and no field may be left over.
"""

import asyncio
import base64
import collections
import json
import struct
import typing
import unittest

import pydantic
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from twilio.twiml.voice_response import VoiceResponse

from edge import PUBLIC, Edge
from simulator import MODEL_KEY, ROOT, Simulator

CLIPS = ROOT / "tests/simulator/clips"
INDEX = CLIPS / "index.tsv"
TEACHER = "+15551230003"
FRAME = 160  # 20 ms of mu-law
SILENCE = b"\xff" * FRAME
TURN_END = 50  # frames of silence: a second, twice what ends a turn
PATIENCE = 30  # seconds for what comes within two

END_CALL = {
    "type": "function",
    "name": "end_call",
    "description": "Hangs up.",
    "parameters": {"type": "object", "properties": {}},
}
SESSION = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "instructions": "You work for a moving company.",
    "audio": {
        "input": {
            "format": {"type": "audio/pcmu"},
            "noise_reduction": {"type": "far_field"},
            "transcription": {"model": "gpt-transcribe", "language": "en"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
                "create_response": True,
                "interrupt_response": True,
            },
        },
        "output": {"format": {"type": "audio/pcmu"}, "voice": "marin", "speed": 1.0},
    },
    "tools": [END_CALL],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "truncation": "auto",
}


def declared_types():
    """The SDK's server events by name."""
    union, *_ = typing.get_args(RealtimeServerEvent)
    names = {}
    for model in typing.get_args(union):
        (name,) = typing.get_args(model.model_fields["type"].annotation)
        names[name] = model
    return names


# The SDK declares a session by the type of the request for one; these are documented and only in the answer.
OF_A_SESSION = {".session.id", ".session.object", ".session.expires_at"}


def undeclared_fields(value, path):
    """Fields that the SDK's types keep without having declared them."""
    if isinstance(value, pydantic.BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}"
        for name in type(value).model_fields:
            yield from undeclared_fields(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from undeclared_fields(item, f"{path}[{index}]")


def clip(name):
    """Frames of a recorded caller: the data of a mu-law WAV."""
    wav = (CLIPS / f"{name}.wav").read_bytes()
    at = 12
    while wav[at : at + 4] != b"data":
        at += 8 + struct.unpack_from("<I", wav, at + 4)[0]
    size = struct.unpack_from("<I", wav, at + 4)[0]
    data = wav[at + 8 : at + 8 + size].replace(b"\x7f", b"\xff")  # two names of silence; callers use one
    return [data[start : start + FRAME].ljust(FRAME, b"\xff") for start in range(0, len(data), FRAME)]


def teach(simulator):
    """The model understands what the simulator's callers were given to say, whoever says it: a refused one will do."""
    sentences = dict(line.split("\tcaller\t") for line in INDEX.read_text().splitlines() if "\tcaller\t" in line)
    order = {"from": "+15557654321", "to": TEACHER, "caller": [{"say": text} for text in sentences.values()]}
    simulator.control("POST", "/_sim/calls", order)


class Session:
    """A connection whose every message is checked."""

    declared = declared_types()

    def __init__(self, connection):
        self.connection = connection
        self.seen = collections.Counter()
        self.problems = []

    async def receive(self):
        raw = await asyncio.wait_for(self.connection.recv_bytes(), PATIENCE)
        name = json.loads(raw).get("type")
        self.seen[name] += 1
        event = self.connection.parse_event(raw)
        declared = self.declared.get(name)
        if declared is None:
            self.problems.append(f"unknown event {name}")
            return event
        if type(event) is not declared:
            self.problems.append(f"{name} became {type(event).__name__}")
        try:
            strict = declared.model_validate_json(raw, strict=True)
            undeclared = set(undeclared_fields(strict, "")) - OF_A_SESSION
            self.problems += [f"undeclared field {name}{path}" for path in undeclared]
        except pydantic.ValidationError as error:
            self.problems.append(f"malformed {name}: {error}")
        return event

    async def until(self, name, fits=lambda _event: True):
        """The next such event."""
        while True:
            event = await self.receive()
            if event.type == name and fits(event):
                return event

    async def say(self, name):
        """A caller's clip and the silence that ends the turn."""
        for frame in clip(name) + [SILENCE] * TURN_END:
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())


class OpenAiTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)  # it reports every slow step

    async def test_a_whole_conversation_is_understood_by_the_sdk(self):
        busy = VoiceResponse()
        busy.reject()
        async with Edge({"/voice": busy}) as edge:
            with Simulator(edge.route, numbers=[f"{TEACHER},PN{3:032},{PUBLIC}/voice"]) as simulator:
                await asyncio.to_thread(teach, simulator)
                client = AsyncOpenAI(api_key=MODEL_KEY, websocket_base_url=simulator.model)
                async with client.realtime.connect(model="gpt-realtime-2.1") as connection:
                    session = Session(connection)
                    await self.begin(session)
                    await self.be_greeted(session)
                    await self.interrupt(session)
                    await self.say_goodbye(session)
                    await self.edit_items(session)
                    await self.make_mistakes(session, simulator)
        for name, count in sorted(session.seen.items()):
            print(f"  {count:4}  {name}")
        print(f"openai: {session.seen.total()} messages, {len(session.problems)} unknown or malformed")
        self.assertEqual(sorted(set(session.problems)), [])

    async def begin(self, session):
        created = await session.until("session.created")
        self.assertTrue(created.session.id.startswith("sess_"))
        await session.connection.session.update(session=SESSION)
        updated = await session.until("session.updated")
        self.assertEqual(updated.session.audio.input.format.type, "audio/pcmu")
        self.assertEqual(updated.session.tools[0].name, "end_call")

    async def be_greeted(self, session):
        await session.connection.response.create()
        audio = 0
        while (event := await session.receive()).type != "response.done":
            if event.type == "response.output_audio.delta":
                audio += len(base64.b64decode(event.delta, validate=True))
        self.assertEqual(event.response.status, "completed")
        self.assertGreater(event.response.usage.output_tokens, 0)
        self.assertIn("Example Movers", event.response.output[0].content[0].transcript)
        self.assertGreater(audio, 8000)

    async def interrupt(self, session):
        await session.say("caller-quote")
        delta = await session.until("response.output_audio.delta")
        await session.say("caller-wait")
        await session.until("input_audio_buffer.speech_started")
        done = await session.until("response.done")
        self.assertEqual((done.response.status, done.response.status_details.reason), ("cancelled", "turn_detected"))
        await session.connection.conversation.item.truncate(
            item_id=delta.item_id, content_index=0, audio_end_ms=20
        )
        truncated = await session.until("conversation.item.truncated")
        self.assertEqual((truncated.item_id, truncated.audio_end_ms), (delta.item_id, 20))
        await session.until("response.done", lambda event: event.response.status == "completed")

    async def say_goodbye(self, session):
        await session.say("caller-bye")
        heard = "conversation.item.input_audio_transcription.completed"
        called = done = None
        transcript = ""
        while called is None or done is None or "goodbye" not in transcript:
            event = await session.receive()
            if event.type == "response.output_item.done" and event.item.type == "function_call":
                called = event.item
            if event.type == heard:
                transcript = event.transcript
            if event.type == "response.done":
                self.assertEqual(event.response.status, "completed")
                done = called and event.response
        self.assertEqual((called.name, called.status, json.loads(called.arguments)), ("end_call", "completed", {}))
        self.assertIn("function_call", [item.type for item in done.output])
        output = {"type": "function_call_output", "call_id": called.call_id, "output": '{"ok":true}'}
        await session.connection.conversation.item.create(item=output)
        await session.until("conversation.item.done", lambda event: event.item.type == "function_call_output")
        await session.connection.response.create()
        await session.until("response.done")

    async def edit_items(self, session):
        items = session.connection.conversation.item
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "One more thing."}]}
        await items.create(item=message)
        added = await session.until("conversation.item.done")
        await items.retrieve(item_id=added.item.id)
        retrieved = await session.until("conversation.item.retrieved")
        self.assertEqual(retrieved.item.content[0].text, "One more thing.")
        await items.delete(item_id=added.item.id)
        deleted = await session.until("conversation.item.deleted")
        self.assertEqual(deleted.item_id, added.item.id)
        await session.connection.input_audio_buffer.clear()
        await session.until("input_audio_buffer.cleared")

    async def make_mistakes(self, session, simulator):
        self.assertEqual(simulator.take_violations(), [])
        await session.connection.response.cancel()
        error = await session.until("error")
        self.assertEqual(error.error.code, "response_cancel_not_active")
        await session.connection.send({"type": "no.such.event", "event_id": "mine"})
        error = await session.until("error")
        self.assertEqual(error.error.event_id, "mine")
        await session.connection.input_audio_buffer.commit(event_id="empty")
        error = await session.until("error")
        self.assertEqual((error.error.code, error.error.event_id), ("input_audio_buffer_commit_empty", "empty"))
        self.assertNotEqual(simulator.take_violations(), [])

    async def test_a_wrong_key_is_refused_at_the_upgrade(self):
        with Simulator() as simulator:
            client = AsyncOpenAI(api_key="wrong", websocket_base_url=simulator.model)
            with self.assertRaisesRegex(Exception, "401"):
                async with client.realtime.connect(model="gpt-realtime-2.1"):
                    pass


if __name__ == "__main__":
    unittest.main()

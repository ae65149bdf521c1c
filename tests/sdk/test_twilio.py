"""Twilio's own SDK against the simulated carrier: REST resources, errors, signatures, and TwiML of its builder.

The SDK reads JSON leniently. Each resource is therefore compared with its JSON: a field that the SDK declares and the
simulator does not send, or the other way round, fails.
"""

import asyncio
import collections
import datetime
import json
import unittest

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.twiml.voice_response import Connect, VoiceResponse

from edge import PUBLIC, Edge
from simulator import ACCOUNT_SID, AUTH_TOKEN, Simulator

NUMBER, NUMBER_SID = "+15551230001", "PN00000000000000000000000000000001"
CALLEE, CALLER = "+15551230009", "+15557654321"
DATES = ("date_created", "date_updated")


class Local(TwilioHttpClient):
    """The SDK's transport, with the simulator in the place of api.twilio.com; keeps what it answered."""

    def __init__(self, base):
        super().__init__()
        self._base = base

    def request(self, method, url, **options):
        assert url.startswith("https://api.twilio.com/"), url
        url = self._base + url.removeprefix("https://api.twilio.com")
        response = super().request(method, url, **options)
        self.last = json.loads(response.text)
        return response


def client(simulator, token=AUTH_TOKEN):
    return Client(ACCOUNT_SID, token, http_client=Local(simulator.twilio))


class TwilioTest(unittest.IsolatedAsyncioTestCase):
    # What the SDK took, by kind.
    seen = collections.Counter()

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)  # it reports every slow step

    @classmethod
    def tearDownClass(cls):
        print("twilio:", ", ".join(f"{count} {name}" for name, count in sorted(cls.seen.items())), "accepted")

    def assert_declared(self, resource, sent):
        """The resource has exactly the fields of the JSON, and its dates were read."""
        declared = {name.removeprefix("_") for name in vars(resource)} - {"version", "solution", "context"}
        name = type(resource).__name__
        self.assertEqual(declared - sent.keys(), set(), f"{name}: declared by the SDK, not sent")
        self.assertEqual(sent.keys() - declared, set(), f"{name}: sent, not declared by the SDK")
        for date in DATES:
            self.assertIsInstance(getattr(resource, date), datetime.datetime)
        self.seen[name] += 1

    def assert_signed(self, request, url):
        """Whether the SDK believes that the carrier sent this."""
        validator = RequestValidator(AUTH_TOKEN)
        self.assertTrue(validator.validate(url, request.form, request.signature), f"{request.method} {url}")
        self.assertFalse(validator.validate(url + "/other", request.form, request.signature))
        self.seen["signature"] += 1

    def assert_refused(self, status, code, request):
        with self.assertRaises(TwilioRestException) as caught:
            request()
        self.assertEqual((caught.exception.status, caught.exception.code), (status, code))
        self.assertTrue(caught.exception.msg)
        self.seen["error"] += 1

    def test_account_and_numbers_are_resources_of_the_sdk(self):
        with Simulator() as simulator:
            twilio = client(simulator)
            account = twilio.api.v2010.accounts(ACCOUNT_SID).fetch()
            self.assertEqual((account.sid, account.status), (ACCOUNT_SID, "active"))
            self.assert_declared(account, twilio.http_client.last)

            by_one = [number.sid for number in twilio.incoming_phone_numbers.stream(page_size=1)]
            self.assertEqual(by_one, [number.sid for number in twilio.incoming_phone_numbers.list()])
            self.assertEqual(len(by_one), 2)
            (found,) = twilio.incoming_phone_numbers.list(phone_number=NUMBER)
            self.assert_declared(found, twilio.http_client.last["incoming_phone_numbers"][0])
            page = twilio.incoming_phone_numbers.page(page_size=1)
            following = page.next_page()
            self.assertEqual([number.sid for number in following.previous_page()], by_one[:1])

            number = twilio.incoming_phone_numbers(NUMBER_SID)
            changed = number.update(
                friendly_name="Front desk",
                voice_url=f"{PUBLIC}/voice",
                voice_method="GET",
                status_callback="",
                voice_application_sid="",
                trunk_sid="",
                voice_caller_id_lookup=True,
            )
            self.assert_declared(changed, twilio.http_client.last)
            read = number.fetch()
            self.assert_declared(read, twilio.http_client.last)
            self.assertEqual((read.friendly_name, read.voice_url, read.voice_method), ("Front desk", f"{PUBLIC}/voice", "GET"))
            self.assertIn(read.status_callback, (None, ""))
            self.assertIs(read.voice_caller_id_lookup, True)
            self.assertIs(read.capabilities["voice"], True)

    def test_refusals_are_the_exceptions_of_the_sdk(self):
        with Simulator() as simulator:
            twilio = client(simulator)
            number = twilio.incoming_phone_numbers
            self.assert_refused(401, 20003, client(simulator, "wrong").calls("CA" + "f" * 32).fetch)
            self.assert_refused(404, 20404, number("PN" + "f" * 32).fetch)
            self.assert_refused(404, 20404, twilio.calls("CA" + "f" * 32).fetch)
            self.assertEqual(simulator.take_violations(), [])
            self.assert_refused(400, 21402, lambda: number(NUMBER_SID).update(voice_url="no url"))
            create = twilio.calls.create
            self.assert_refused(400, 21211, lambda: create(to="nobody", from_=NUMBER, twiml="<Response/>"))
            self.assert_refused(400, 21210, lambda: create(to=CALLEE, from_="+15550000000", twiml="<Response/>"))
            self.assert_refused(400, 21205, lambda: create(to=CALLEE, from_=NUMBER))
            self.assert_refused(404, 20404, lambda: twilio.calls("CA" + "f" * 32).update(status="completed"))
            self.assertEqual(len(simulator.take_violations()), 4)

    async def test_calls_are_resources_of_the_sdk_and_their_callbacks_are_signed(self):
        twiml = VoiceResponse()
        twiml.pause(length=60)
        async with Edge({"/out": twiml, "/moved": VoiceResponse()}) as edge:
            with Simulator(edge.route) as simulator:
                twilio = client(simulator)

                def create():
                    return twilio.calls.create(
                        to=CALLEE,
                        from_=NUMBER,
                        url=f"{PUBLIC}/out?tenant=a%20b&x=1#rc=2",
                        status_callback=f"{PUBLIC}/status",
                        status_callback_event=["initiated", "ringing", "answered", "completed"],
                        timeout=20,
                    )

                call = await asyncio.to_thread(create)
                self.assert_declared(call, twilio.http_client.last)
                self.assertEqual((call.to, call.direction), (CALLEE, "outbound-api"))
                out = await edge.first("/out")
                self.assertEqual((out.path, out.value("CallSid")), ("/out?tenant=a%20b&x=1", call.sid))
                self.assert_signed(out, f"{PUBLIC}/out?tenant=a%20b&x=1")

                running = await asyncio.to_thread(twilio.calls(call.sid).fetch)
                self.assertEqual(running.status, "in-progress")
                self.assertIsInstance(running.start_time, datetime.datetime)
                (listed,) = await asyncio.to_thread(lambda: twilio.calls.list(to=CALLEE, status="in-progress"))
                self.assert_declared(listed, twilio.http_client.last["calls"][0])
                moved = await asyncio.to_thread(lambda: twilio.calls(call.sid).update(url=f"{PUBLIC}/moved", method="GET"))
                self.assert_declared(moved, twilio.http_client.last)
                request = await edge.first("/moved")
                self.assertEqual((request.method, len(request.form)), ("GET", 0))
                self.assert_signed(request, PUBLIC + request.path)

                for status in ("initiated", "ringing", "in-progress", "completed"):
                    event = await edge.first("/status", lambda seen: seen.value("CallStatus") == status)
                    self.assertEqual(event.value("CallSid"), call.sid)
                    self.assert_signed(event, f"{PUBLIC}/status")
                ended = await asyncio.to_thread(twilio.calls(call.sid).fetch)
                self.assert_declared(ended, twilio.http_client.last)
                self.assertEqual(ended.status, "completed")
                self.assertIsInstance(ended.end_time, datetime.datetime)
                self.assertIsInstance(ended.duration, str)
                late = lambda: self.assert_refused(400, 21220, lambda: twilio.calls(call.sid).update(status="completed"))
                await asyncio.to_thread(late)

    async def test_a_call_in_is_signed_at_every_door_and_in_every_form_of_the_stream_url(self):
        forms = {"asIs": "/stream", "trailingSlash": "/stream/", "port": ":443/stream", "portAndTrailingSlash": ":443/stream/"}
        for form, signed in forms.items():
            with self.subTest(form=form):
                await self.call_in(form, PUBLIC.replace("https", "wss") + signed)

    async def call_in(self, form, stream_url):
        connect = Connect(action=f"{PUBLIC}/after?leg=1&x=%C3%BC")
        stream = connect.stream(
            url=f"{PUBLIC.replace('https', 'wss')}/stream", status_callback=f"{PUBLIC}/stream-status", name="agent"
        )
        stream.parameter(name="token", value='a "b" & <c>')
        voice, after = VoiceResponse(), VoiceResponse()
        voice.append(connect)
        after.say("Goodbye, Zoë.", language="en-US")
        after.hangup()
        extra = f"\nstreamUrlForm: {form}\nactionAfterHangUp: true\n"
        async with Edge({"/voice": voice, "/after": after}) as edge:
            with Simulator(edge.route, extra) as simulator:
                twilio = client(simulator)
                set_up = lambda: twilio.incoming_phone_numbers(NUMBER_SID).update(
                    voice_url=f"{PUBLIC}/voice", status_callback=f"{PUBLIC}/status"
                )
                await asyncio.to_thread(set_up)
                order = {"from": CALLER, "to": NUMBER, "caller": [{"pause": 300}, "hangUp"]}
                await asyncio.to_thread(simulator.control, "POST", "/_sim/calls", order)
                voice = await edge.first("/voice")
                self.assertEqual((voice.value("CallStatus"), voice.value("Direction")), ("ringing", "inbound"))
                self.assert_signed(voice, f"{PUBLIC}/voice")
                upgrade = await edge.first("/stream")
                self.assertEqual(upgrade.method, "GET")
                self.assert_signed(upgrade, stream_url)
                for event in ("stream-started", "stream-stopped"):
                    request = await edge.first("/stream-status", lambda seen: seen.value("StreamEvent") == event)
                    self.assert_signed(request, f"{PUBLIC}/stream-status")
                self.assert_signed(await edge.first("/after"), f"{PUBLIC}/after?leg=1&x=%C3%BC")
                status = await edge.first("/status")
                self.assertEqual(status.value("CallStatus"), "completed")
                self.assert_signed(status, f"{PUBLIC}/status")


if __name__ == "__main__":
    unittest.main()

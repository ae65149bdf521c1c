"""What stands behind the public URL of a simulated call: answers webhooks with TwiML, takes streams, remembers all."""

import asyncio
import dataclasses

from aiohttp import WSMsgType, web
from multidict import MultiMapping

PUBLIC = "https://voice.example.com"


@dataclasses.dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    form: MultiMapping
    signature: str

    def value(self, name):
        (value,) = self.form.getall(name)
        return value


class Edge:
    """Serves while entered; `answers` are TwiML by path, all else is an empty 204."""

    def __init__(self, answers):
        self._answers = answers
        self._news = asyncio.Condition()
        self.seen = []

    async def __aenter__(self):
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0]
        self.route = f"{PUBLIC}=http://{host}:{port}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def first(self, path, fits=lambda _request: True):
        """The first such request, when it has come."""
        async with self._news:
            find = lambda: next((seen for seen in self.seen if seen.path.startswith(path) and fits(seen)), None)
            return await asyncio.wait_for(self._news.wait_for(find), 30)

    async def _serve(self, request):
        form = await request.post()
        signature = request.headers.get("X-Twilio-Signature", "")
        async with self._news:
            self.seen.append(Seen(request.method, request.path_qs, form, signature))
            self._news.notify_all()
        if request.headers.get("Upgrade", "").lower() == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                if message.type != WSMsgType.TEXT:
                    break
            return socket
        answer = self._answers.get(request.path)
        if answer is None:
            return web.Response(status=204)
        return web.Response(text=str(answer), content_type="text/xml")

"""The HTTP server: parse, call, render. `openapi.OPERATIONS` lists what it serves."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, get_args

import h3
import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from federation import metrics
from federation.aiokit import http
from federation.aiokit.address import is_loopback
from federation.api import access, openapi, render, views
from federation.api.answers import answer, answer_bytes, answer_list, refuse
from federation.api.board import Board, Isolines, listed
from federation.api.openapi import COUNTRY, DECIMAL, FILE_NAME, H3, LONGEST_WAIT_S, MOST_PLANS, MOST_REVISION_DIGITS
from federation.traffic.snapshot import Entry, Index

T = TypeVar("T", bound=views.View)
PAGE_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MAX_BODY_BYTES = 1024 * 1024 + 1
STREAM_SPACING_S = 1.0
"""The shortest time between two worlds of a stream: a map is looked at, not computed with."""
STREAM_SEND_S = 30.0
"""A client that takes longer to read one world is too slow for a stream: unread worlds would pile up in memory."""
STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
HEALTH = frozenset({"/healthz", "/readyz"})


class Refused(Exception):
    """A request that is understood and refused; it becomes the refusal that it carries."""

    def __init__(
        self, status: int, code: str, message: str, hint: str, problems: tuple[views.ProblemView, ...] = ()
    ) -> None:
        super().__init__(message)
        self.response = (status, code, message, hint, problems)


def not_found(what: str, plural: str) -> Refused:
    """The refusal for an unknown name; `plural` is the list of its kind."""
    return Refused(404, "NotFound", what, f"`isochrone get {plural}` (GET /v1/{plural}) lists what there is")


def not_planned() -> Refused:
    """The refusal while no routes are known: unknown is not nobody."""
    return Refused(503, "NotPlanned", "no routes are known yet", "keep what you have, and try again")


class Services(Protocol):
    """What the API needs of the controller."""

    metrics: metrics.Metrics

    def scene(self) -> render.Scene: ...
    def why_not_ready(self) -> str: ...
    def events_after(self, event_id: int) -> Sequence[views.EventView]: ...
    async def change(self, timeout_s: float) -> None: ...
    def index(self) -> Index: ...
    async def plans(self, limit: int) -> Sequence[views.PlanView]: ...
    async def plan(self, generation: int) -> views.PlanView | None: ...
    def policies(self) -> Sequence[views.PolicyFileView]: ...
    async def explain(self, model: str, cluster: str | None, of: views.Explained) -> views.ExplanationView: ...
    async def explain_cell(self, model: str, cell: str) -> views.CellExplanationView: ...
    async def frontier(self, model: str) -> views.FrontierView: ...
    async def diff(self, name: str, payload: bytes) -> views.DiffView: ...
    async def apply(self, name: str, payload: bytes, actor: str, force: str = "") -> views.AppliedView: ...
    async def roll_back(self, name: str, revision: int | None, actor: str, force: str = "") -> views.AppliedView: ...
    async def withdraw(self, name: str, actor: str, force: str = "") -> views.WithdrawnView: ...
    async def cordon(self, cluster: str, reason: str, *, drain: bool, force: bool = False) -> None: ...
    async def uncordon(self, cluster: str) -> None: ...
    async def confirm(self, cluster: str, model: str, reason: str) -> None: ...


class InsecureListen(ValueError):
    """The API would be served in plain text beyond this machine. The message says which options to give."""


def tls_context(host: str, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext | None:
    """The TLS context; None for plain text on loopback. Raises: InsecureListen."""
    if cert_file is None:
        if not is_loopback(host):
            raise InsecureListen(
                f"the API would be served on {host} in plain text: give --tls-cert and --tls-key, or --listen 127.0.0.1"
            )
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert_file, key_file)
    return context


def application(
    services: Services, *, token: str, web_dir: Path | None, version: str, held: int = 256
) -> web.Application:
    """The aiohttp application.

    Args: web_dir: holds the built map; None serves a page that says how to build it. held: the most streams and long
        polls.
    """
    middlewares = [http.bounded(_full), access.guard(token), _errors]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    api = _Api(services, token, web_dir, version, held)
    app.add_routes(api.routes())
    return app


def _full(request: web.Request, is_own: bool) -> web.StreamResponse | None:
    """The response while all connections are busy. Health is answered all the same."""
    if request.path in HEALTH:
        return None
    if is_own:
        hint = "close some, as maps and long polls, or try again as Retry-After says"
        refusal = refuse(
            429, "TooManyConnections", "this address has the most connections that one address may have", hint
        )
    else:
        text = "all connections are busy"
        refusal = refuse(503, "Full", text, "try again as Retry-After says")
    refusal.headers.update(access.SECURITY_HEADERS)
    return refusal


@web.middleware
async def _errors(request: web.Request, handler: access.Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        return refuse(*error.response)
    except web.HTTPRequestEntityTooLarge:
        return refuse(413, "TooLarge", "the body is longer than 1 MiB", "split the policy into several files")
    except web.HTTPNotFound:
        return refuse(404, "NotFound", f"no such path: {request.path}", "GET /openapi.json lists what there is")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        refusal = refuse(
            405, "MethodNotAllowed", f"{request.path} does not support {request.method}", f"it takes {allowed}"
        )
        refusal.headers["Allow"] = allowed
        return refusal


class _Held:
    """Requests that stay open, as streams and long polls do. Their number is bounded, so that others find room."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0

    def __enter__(self) -> None:
        if self._count >= self._most:
            text = f"{self._most} streams and long polls are open, and no more may be"
            raise Refused(503, "Full", text, "close maps that nobody looks at, or try again as Retry-After says")
        self._count += 1

    def __exit__(self, *error: object) -> None:
        self._count -= 1


class _Api:
    def __init__(self, services: Services, token: str, web_dir: Path | None, version: str, held: int) -> None:
        self._services = services
        self._board = Board(services.scene, render.overview)
        self._placed = Board(services.scene, listed(render.placements))
        self._gateway_board = Board(services.scene, listed(render.gateways))
        self._route_board = Board(services.scene, render.route_table)
        self._prices = Board(services.scene, listed(render.prices))
        self._demand = Board(services.scene, listed(render.demand))
        self._engines = Board(services.scene, listed(render.engines))
        self._boards = (
            self._board,
            self._placed,
            self._gateway_board,
            self._route_board,
            self._prices,
            self._demand,
            self._engines,
        )
        self._isolines = Isolines(services.scene)
        self._held = _Held(held)
        self._token = token
        self._web_dir = web_dir
        self._openapi = msgspec.json.encode(openapi.document(version))

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/healthz", self._health),
            web.get("/readyz", self._ready),
            web.get("/metrics", self._metrics),
            web.get("/openapi.json", self._document),
            web.get("/signin", self._signin),
            web.get("/v1/overview", self._overview),
            web.get("/v1/clusters", self._list(lambda o: o.clusters)),
            web.get("/v1/clusters/{name}", self._one("cluster", lambda o: o.clusters)),
            web.get("/v1/models", self._list(lambda o: o.models)),
            web.get("/v1/models/{name}", self._one("model", lambda o: o.models)),
            web.get("/v1/cells", self._list(lambda o: o.cells)),
            web.get("/v1/cells/{name}", self._one("cell", lambda o: o.cells)),
            web.get("/v1/placements", self._placements),
            web.get("/v1/plans", self._plans),
            web.get("/v1/plans/{name}", self._plan),
            web.get("/v1/events", self._events),
            web.get("/v1/routes", self._routes),
            web.get("/v1/route", self._route),
            web.get("/v1/route/snapshot", self._snapshot),
            web.get("/v1/gateways", self._gateways),
            web.get("/v1/prices", self._price_list),
            web.get("/v1/latency", self._latency),
            web.get("/v1/demand", self._demand_list),
            web.get("/v1/engines", self._engine_list),
            web.get("/v1/policies", self._policies),
            web.post("/v1/policies", self._apply),
            web.post("/v1/policies/{name:.+\\.ya?ml}/rollback", self._roll_back),
            web.delete("/v1/policies/{name:.+\\.ya?ml}", self._withdraw),
            web.get("/v1/explain/placement/{model}", self._explain),
            web.get("/v1/explain/cell/{model}/{cell}", self._explain_cell),
            web.get("/v1/frontier", self._frontier),
            web.get("/v1/isochrones/{model}", self._isochrones),
            web.post("/v1/diff", self._diff),
            web.post("/v1/clusters/{name}/{action:cordon|drain|uncordon}", self._cordon),
            web.post("/v1/clusters/{name}/confirm", self._confirm),
            web.get("/v1/stream", self._stream, allow_head=False),
            web.get("/", self._page),
            web.get("/{file:index.html|app.js|app.css|favicon.svg}", self._page),
        ]

    # ---- reading

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        why_not = self._services.why_not_ready()
        return web.Response(text=f"{why_not or 'ok'}\n", status=503 if why_not else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, self._services.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _document(self, request: web.Request) -> web.Response:
        return web.Response(body=self._openapi, content_type="application/json")

    async def _overview(self, request: web.Request) -> web.Response:
        return answer_bytes((await self._board.drawn()).body)

    def _outdate(self) -> None:
        for board in self._boards:
            board.outdate()

    async def _drawn(self) -> views.OverviewView:
        return (await self._board.drawn()).view

    def _list(self, pick: Callable[[views.OverviewView], Sequence[views.View]]) -> access.Handler:
        async def handler(request: web.Request) -> web.Response:
            return answer_list(pick(await self._drawn()))

        return handler

    def _one(self, kind: str, pick: Callable[[views.OverviewView], Sequence[T]]) -> access.Handler:
        async def handler(request: web.Request) -> web.Response:
            return answer(_named(kind, request.match_info["name"], pick(await self._drawn())))

        return handler

    async def _placements(self, request: web.Request) -> web.Response:
        return answer_bytes((await self._placed.drawn()).body)

    async def _plans(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", default=50.0, low=1.0, high=MOST_PLANS)
        if not limit.is_integer():
            raise Refused(400, "BadRequest", f"limit={limit:g} is not a whole number", "")
        return answer_list(await self._services.plans(int(limit)))

    async def _plan(self, request: web.Request) -> web.Response:
        wanted = request.match_info["name"].rpartition(".")[2]
        is_number = wanted.isascii() and wanted.isdigit() and len(wanted) < 16
        plan = await self._services.plan(int(wanted)) if is_number else None
        if plan is None:
            raise not_found(f"plan {request.match_info['name']} not found", "plans")
        return answer(plan)

    async def _events(self, request: web.Request) -> web.Response:
        return answer_list(self._services.events_after(0))

    async def _gateways(self, request: web.Request) -> web.Response:
        return answer_bytes((await self._gateway_board.drawn()).body)

    async def _price_list(self, request: web.Request) -> web.Response:
        return answer_bytes((await self._prices.drawn()).body)

    async def _latency(self, request: web.Request) -> web.Response:
        cell, cluster = request.query.get("cell"), request.query.get("cluster")
        if cell is None and cluster is None:
            text = "latency of which users to which cluster?"
            raise Refused(404, "NotFound", text, "add ?cell=NAME, &cluster=NAME, or both")
        found = await asyncio.to_thread(render.latencies, self._services.scene(), cell, cluster)
        if found is None:
            named = " or ".join(f"{kind} {name}" for kind, name in (("cell", cell), ("cluster", cluster)) if name)
            raise not_found(f"{named} not found", "cells")
        return answer_list(found)

    async def _demand_list(self, request: web.Request) -> web.Response:
        return answer_bytes((await self._demand.drawn()).body)

    async def _engine_list(self, request: web.Request) -> web.Response:
        return answer_bytes((await self._engines.drawn()).body)

    async def _policies(self, request: web.Request) -> web.Response:
        return answer_list(self._services.policies())

    async def _routes(self, request: web.Request) -> web.Response:
        model = request.query.get("model")
        if "lat" not in request.query and "lon" not in request.query:
            drawn = await self._route_board.drawn()
            if model is None:
                return answer_bytes(drawn.body)
            rows = tuple(row for row in drawn.view.items if row.model == model)
            return answer(msgspec.structs.replace(drawn.view, items=rows))
        if model is None:
            raise Refused(404, "NotFound", "lat and lon need a model", "add &model=NAME")
        lat, lon = _place(request)
        nearest = await asyncio.to_thread(render.nearest_route, self._services.scene(), model, lat, lon)
        if nearest is None:
            raise not_found(f"no routes for model {model}", "models")
        return answer(nearest)

    async def _route(self, request: web.Request) -> web.Response:
        """Which cluster serves a user: fast enough for every request. With If-None-Match and wait, a long poll."""
        entry = self._entry(request)
        given = request.headers.get("If-None-Match", "")
        if given:
            async for _ in self._waits(request):
                if not _is_known(entry.etag, given):
                    break
                entry = self._entry(request)
            if _is_known(entry.etag, given):
                return web.Response(status=304, headers={"ETag": entry.etag})
        key = request.rel_url.query.get("key", "")
        body = entry.with_pick(key) if key else entry.body
        return web.Response(body=body, headers={"Content-Type": "application/json", "ETag": entry.etag})

    async def _waits(self, request: web.Request) -> AsyncIterator[None]:
        """Yields once, and then after every change until the request's time is over. A client with `If-None-Match: *`
        learns nothing by waiting."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _number(request, "wait", default=0.0, high=LONGEST_WAIT_S)
        yield
        if "*" in (one.strip() for one in request.headers.get("If-None-Match", "").split(",")):
            return
        while (left_s := until_s - loop.time()) > 0:
            with self._held:
                await self._services.change(left_s)
            yield

    def _entry(self, request: web.Request) -> Entry:
        query = request.rel_url.query
        index, model, country = self._services.index(), query.get("model", ""), _country(query.get("country"))
        if not model:
            raise Refused(400, "BadRequest", "the parameter model is missing", "add model=NAME")
        if "cell" in query:
            entry = index.cell(model, query["cell"], country)
        elif "h3" in query:
            entry = index.at(model, *_h3(query["h3"]), country)
        elif query.keys() & {"lat", "lon"}:
            entry = index.at(model, *_place(request), country)
        else:
            entry = index.anywhere(model)
        if entry is None:
            if not index.snapshot.version:
                raise not_planned()
            if model not in index.models():
                raise not_found(f"no routes for model {model}", "models")
            raise not_found(f"nobody serves model {model} there", "cells")
        return entry

    async def _snapshot(self, request: web.Request) -> web.Response:
        """All routes in one document, for clients that answer by themselves; with If-None-Match and wait, a long
        poll."""
        given = request.headers.get("If-None-Match", "")
        index = self._services.index()
        async for _ in self._waits(request):
            index = self._services.index()
            if not _is_known(f'"{index.snapshot.version}"', given):
                break
        if not index.snapshot.version:
            raise not_planned()
        etag = f'"{index.snapshot.version}"'
        if _is_known(etag, given):
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=index.body, headers={"Content-Type": "application/json", "ETag": etag})

    async def _explain(self, request: web.Request) -> web.Response:
        asked, cluster = request.query.get("of", "plan"), request.query.get("cluster")
        if asked not in get_args(views.Explained):
            raise Refused(400, "BadRequest", f"of={asked} cannot be explained", "of is plan or newest")
        of: views.Explained = "newest" if asked == "newest" else "plan"
        return answer(await self._services.explain(request.match_info["model"], cluster, of))

    async def _explain_cell(self, request: web.Request) -> web.Response:
        return answer(await self._services.explain_cell(request.match_info["model"], request.match_info["cell"]))

    async def _frontier(self, request: web.Request) -> web.Response:
        return answer(await self._services.frontier(request.query.get("model", "")))

    async def _isochrones(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if "lat" in request.query or "lon" in request.query:
            lat, lon = _place(request)
            view = await asyncio.to_thread(render.place_view, self._services.scene(), name, lat, lon)
            if view is None:
                raise not_found(f"model {name} not found", "models")
            return answer(view)
        body = await self._isolines.drawn(name)
        if body is None:
            raise not_found(f"model {name} not found", "models")
        return answer_bytes(body)

    # ---- changing

    async def _diff(self, request: web.Request) -> web.Response:
        return answer(await self._services.diff(_file_name(request), await _body(request)))

    async def _apply(self, request: web.Request) -> web.Response:
        changed = await self._services.apply(_file_name(request), await _body(request), "api", _force(request))
        self._outdate()
        return answer(changed)

    async def _roll_back(self, request: web.Request) -> web.Response:
        name, text = request.match_info["name"], request.query.get("revision")
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= MOST_REVISION_DIGITS):
            raise Refused(400, "BadRequest", f"revision={text!r} is not a revision", "a whole number")
        revision = int(text) if text is not None else None
        changed = await self._services.roll_back(name, revision, "api", _force(request))
        self._outdate()
        return answer(changed)

    async def _withdraw(self, request: web.Request) -> web.Response:
        changed = await self._services.withdraw(request.match_info["name"], "api", _force(request))
        self._outdate()
        return answer(changed)

    async def _cordon(self, request: web.Request) -> web.Response:
        name, action = request.match_info["name"], request.match_info["action"]
        _named("cluster", name, (await self._drawn()).clusters)
        if action == "uncordon":
            await self._services.uncordon(name)
        else:
            reason, force = await _reason(request), action == "drain" and _is_forced(request)
            await self._services.cordon(name, reason, drain=action == "drain", force=force)
        self._outdate()
        return answer(_named("cluster", name, (await self._drawn()).clusters))

    async def _confirm(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        _named("cluster", name, (await self._drawn()).clusters)
        await self._services.confirm(name, request.query.get("model", ""), await _reason(request))
        self._outdate()
        return answer(_named("cluster", name, (await self._drawn()).clusters))

    # ---- the browser

    async def _signin(self, request: web.Request) -> web.StreamResponse:
        if not access.same(request.query.get("token", ""), self._token):
            raise Refused(401, "Unauthorized", "this link is not valid", "use the one that the controller printed last")
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            access.COOKIE, self._token, httponly=True, samesite="Strict", secure=request.secure, path="/"
        )
        return response

    async def _page(self, request: web.Request) -> web.StreamResponse:
        file = request.match_info.get("file", "index.html")
        try:
            # No FileResponse: the middleware that bounds answers sends them, and aiohttp would open the file again.
            body = await asyncio.to_thread(_read, self._web_dir, file)
        except FileNotFoundError:
            raise Refused(404, "NotFound", "the map is not built", "run `make web` and reload") from None
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if _is_known(etag, request.headers.get("If-None-Match", "")):
            return web.Response(status=304, headers=headers)
        return web.Response(body=http.Shared(body, PAGE_TYPES[Path(file).suffix]), headers=headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Events in order and the newest world; a slow reader gets fewer worlds, never a backlog."""
        last = request.headers.get("Last-Event-ID", "")
        seen = int(last) if last.isascii() and last.isdigit() else 0
        stream = web.StreamResponse(headers=access.SECURITY_HEADERS | STREAM_HEADERS)
        with self._held:
            await stream.prepare(request)
            try:
                while True:
                    async with asyncio.timeout(STREAM_SEND_S):
                        events = self._services.events_after(seen)
                        seen = max((event.id for event in events), default=seen)
                        # At once: thousands of small writes would hold the loop for seconds.
                        await http.write(stream, b"".join(map(_as_event, events)) + b"event: world\r\ndata: ")
                        await http.write(stream, (await self._board.drawn(STREAM_SPACING_S)).body)
                        await stream.write(b"\r\n\r\n")
                    await asyncio.sleep(STREAM_SPACING_S)
                    await self._services.change(timeout_s=5.0)
            except ConnectionResetError:
                pass  # who closes a map while it is being written to has done nothing wrong
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
        return stream


def _as_event(event: views.EventView) -> bytes:
    return b"id: %d\r\nevent: event\r\ndata: %b\r\n\r\n" % (event.id, msgspec.json.encode(event))


def _named(kind: str, name: str, items: Sequence[T]) -> T:
    for item in items:
        if getattr(item, "name", None) == name:
            return item
    raise not_found(f"{kind} {name} not found", f"{kind}s")


def _file_name(request: web.Request) -> str:
    name = request.query.get("name", "api.yaml")
    if not re.match(FILE_NAME, name):
        raise Refused(
            400, "BadRequest", f"{name!r} is not the name of a policy file", "without directories, and it ends in .yaml"
        )
    return name


def _force(request: web.Request) -> str:
    """The reason for which a change is forced; empty without `force`."""
    forced, reason = _is_forced(request), request.query.get("reason", "").strip()
    if forced and not reason:
        raise Refused(409, "NeedsReason", "a reason is needed", "add reason=TEXT: the next engineer will ask")
    return reason[:500] if forced else ""


def _is_forced(request: web.Request) -> bool:
    given = request.query.get("force", "false")
    if given not in ("true", "false"):
        raise Refused(400, "BadRequest", f"force={given!r} is neither true nor false", "")
    return given == "true"


async def _body(request: web.Request) -> bytes:
    """The body, if it arrives in time. Raises: Refused."""
    try:
        async with asyncio.timeout(http.BODY_S):
            return await request.read()
    except TimeoutError:
        text = f"the body did not arrive within {http.BODY_S:g} s"
        raise Refused(408, "RequestTimeout", text, "send it faster, or in several files") from None


async def _reason(request: web.Request) -> str:
    hint = 'send {"reason": "…"}: the next engineer will ask'
    try:
        return msgspec.json.decode(await _body(request), type=views.ReasonBody).reason.strip()[:500]
    except msgspec.ValidationError as error:
        raise Refused(400, "BadRequest", f"a reason is needed: {error}", hint) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, "BadRequest", f"the body is not JSON: {error}", hint) from error


def _read(directory: Path | None, file: str) -> bytes:
    """Raises: FileNotFoundError, also where there is no directory."""
    if directory is None:
        raise FileNotFoundError(file)
    return (directory / file).read_bytes()


def _is_known(etag: str, given: str) -> bool:
    """Whether `If-None-Match` contains this ETag: among several, weakened by a proxy, or as `*`."""
    return any(one.strip().removeprefix("W/") in (etag, "*") for one in given.split(","))


def _country(text: str | None) -> str:
    if text is not None and not re.match(COUNTRY, text):
        raise Refused(400, "BadRequest", f"country={text!r} is not a country", "ISO 3166-1 alpha-2, as DE")
    return (text or "").upper()


def _place(request: web.Request) -> tuple[float, float]:
    """Latitude and longitude in degrees."""
    given = {
        name: _number(request, name, low=-high, high=high)
        for name, high in (("lat", 90.0), ("lon", 180.0))
        if name in request.query
    }
    if len(given) < 2:
        raise Refused(404, "NotFound", "lat and lon are needed together", "add lat=DEGREES&lon=DEGREES")
    return given["lat"], given["lon"]


def _h3(text: str) -> tuple[float, float]:
    """The middle of an H3 cell: latitude and longitude in degrees."""
    if not re.match(H3, text):
        raise Refused(400, "BadRequest", f"h3={text!r} is not an H3 index", "in hexadecimal, as 841f91dffffffff")
    if not h3.is_valid_cell(text):
        raise Refused(404, "NotFound", f"h3={text!r} is not an H3 cell", "a cell's index, as 841f91dffffffff")
    lat, lon = h3.cell_to_latlng(text)
    return float(lat), float(lon)


def _number(
    request: web.Request, name: str, *, default: float | None = None, low: float = 0.0, high: float = 1e9
) -> float:
    text = request.query.get(name)
    if text is None and default is not None:
        return default
    value = float(text) if text is not None and re.match(DECIMAL, text) else float("nan")
    if not low <= value <= high:
        raise Refused(400, "BadRequest", f"{name}={text!r}: expected a number from {low:g} to {high:g}", "")
    return value

"""Authentication: default deny.

A bearer token opens everything. At `/signin` a browser exchanges it for a cookie that opens reads only, so that no
other site can make the browser change anything. The page itself, health and readiness are open: they reveal nothing of
the world.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from federation.api.answers import refuse

COOKIE = "isochrone_token"
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/signin", "/", "/index.html", "/app.js", "/app.css", "/favicon.svg"})
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guard(token: str) -> Middleware:
    """The middleware that authenticates requests and sets the security headers on every answer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS or _may(request, token):
            response = await handler(request)
        else:
            response = refuse(
                401,
                "Unauthorized",
                "no valid token",
                "send 'Authorization: Bearer TOKEN', or open the link that the controller printed",
            )
            response.headers["WWW-Authenticate"] = 'Bearer realm="isochrone"'
        if not response.prepared:
            response.headers.update(SECURITY_HEADERS)
        return response

    return middleware


def _may(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return same(given.strip(), token)
    return request.method in ("GET", "HEAD") and same(request.cookies.get(COOKIE, ""), token)


def same(given: str, token: str) -> bool:
    """Whether the tokens are equal, compared in constant time."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode())

"""The routes of ``spr inspect``. Every page is whole without JavaScript; nothing comes from anywhere else.

The server is for this machine's user: another site that the browser has open may neither read nor post here,
so that Host is one of ours, Origin is the page's own, and the answer's policy lets no page run or show what
does not come from here. Texts of a run are other people's: templates escape everything.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spr_plugin.errors import UserError
from spr_plugin.marks import mark
from spr_plugin.meanings import LEFT_OUT, REASONS, meaning_of
from spr_plugin.recipes.base import Query
from spr_plugin.runs.moved import advice
from spr_plugin.tools.inspect import pictures
from spr_plugin.tools.inspect.choosing import MOST_NAMES, ORDERS, Wanted, around, page_of
from spr_plugin.tools.inspect.indexed import STRANGE, IndexedRound, IndexedRun
from spr_plugin.tools.inspect.items import Item, pair_item, query_item, shown
from spr_plugin.tools.inspect.layers import apart
from spr_plugin.tools.inspect.rows import Row

HERE = Path(__file__).parent
HOSTS = ["127.0.0.1", "localhost"]
LONGEST_FORM = 1 << 16  # bytes
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A form's Origin is "null" where no referrer is sent at all.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
KEPT = "private, no-cache"  # of a picture: never shown without a question whether it is still the same


class Guarded:
    """Adds HEADERS to every answer, but what it says itself, and lets nobody post but our own pages."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
            await send(message)

        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Request(scope).headers
        if (
            scope["method"] not in ("GET", "HEAD")
            and headers.get("origin") != f"http://{headers.get('host')}"
        ):
            refused = Response("not from a page of this server\n", 403, media_type="text/plain")
            return await refused(scope, receive, guarded)
        return await self.app(scope, receive, guarded)


class Pages:
    """What each address answers; one after the other, in one thread, but for pictures, which take a while."""

    def __init__(self, run: IndexedRun):
        self.run = run

    def meaning(self, word: str, shared: Mapping[str, str] = REASONS) -> str:
        recipe = self.run.rounds[0].recipe
        return meaning_of(word, recipe.MEANINGS if recipe else {}, shared)

    def page(self, name: str, status: int = 200, **data: Any) -> Response:
        first = self.run.rounds[0].run
        about = {"folder": str(first.folder), "marks_file": str(self.run.marks_file)}
        text = templates().get_template(name).render(about=about, **data)
        return HTMLResponse(text.encode("utf-8", "replace"), status)

    async def index(self, request: Request) -> Response:
        self.run.refresh()
        wanted, (marks, broken) = Wanted.of(request.query_params), self.run.marks()
        rows = self.run.chosen(wanted)
        page, pages, here = page_of(rows, request.query_params.get("page", "1"))
        lost = self.run.lost(here)
        left_out = {
            reason: (count, self.meaning(reason, LEFT_OUT))
            for reason, count in self.run.rounds[0].run.skipped.items()
        }
        return self.page(
            "index.html",
            wanted=wanted,
            facets=self.run.facets,
            names=list(islice(self.run.facets["category"].items(), MOST_NAMES)),
            orders={name: words for name, (words, _, _) in ORDERS.items()},
            rows=here,
            lost=lost,
            left_out_pairs=self.run.rounds[0].run.excluded,
            page=page,
            pages=pages,
            total=len(rows),
            all=sum(self.run.facets["state"].values()),
            marks=marks,
            meaning=self.meaning,
            notices=[
                *Wanted.strange(request.query_params),
                *self.run.notices(),
                *filter(None, [broken, _lost_line(lost, self.run.images)]),
            ],
            left_out=left_out,
        )

    def _known(self, request: Request, of: str) -> tuple[IndexedRound, Row]:
        self.run.refresh()
        id = request.path_params["id"]
        round_and_row = self.run.pair(id) if of == "pair" else self.run.query(id)
        if round_and_row is None:
            raise HTTPException(404, f"This run has no {of} {id}; while it goes on there may be one later.")
        return round_and_row

    def _shown(self, request: Request, name: str, item: Item) -> Response:
        wanted, (marks, broken) = Wanted.of(request.query_params), self.run.marks()
        rows = self.run.chosen(wanted)
        position, before, behind = around(rows, item.row.id)
        neighbours: dict[str, Any] = {
            "position": position,
            "total": len(rows),
            "before": before,
            "behind": behind,
        }
        strange = Wanted.strange(request.query_params)
        notices = [*strange, *self.run.notices(), *([broken] if broken else []), *item.notes]
        return self.page(name, item=item, wanted=wanted, notices=notices, marks=marks, **neighbours)

    async def query(self, request: Request) -> Response:
        return self._shown(request, "query.html", query_item(*self._known(request, "query")))

    async def pair(self, request: Request) -> Response:
        return self._shown(request, "pair.html", pair_item(*self._known(request, "pair")))

    async def mark(self, request: Request) -> Response:
        """Marks a pair as bad, or takes its mark back, and goes back to its page."""
        _, row = self._known(request, "pair")
        assert row.pair is not None, "rows are found by their pairs"
        body = b""
        async for block in request.stream():
            body += block
            if len(body) > LONGEST_FORM:
                raise HTTPException(413, f"A note has at most {LONGEST_FORM} bytes.")
        form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=9)
        note, do = (form.get(name, [""])[0] for name in ("note", "do"))
        if do not in ("mark", "unmark"):
            raise HTTPException(400, "The form asks for neither a mark nor the end of one.")
        note = note.replace("\r\n", "\n").strip()
        mark(self.run.marks_file, row.pair, note if do == "mark" else None)
        address = f"/pair/{quote(row.pair, safe='')}{Wanted.of(request.query_params).address}"
        return RedirectResponse(address, 303)

    async def picture(self, request: Request) -> Response:
        one, row = self._known(request, "query")
        read = one.recipe.read if one.recipe else Query.from_record
        number = request.path_params["number"]
        try:
            shown_to_it = read(one.records("queries", row.id)[0]).pictures
            if number >= len(shown_to_it):
                raise UserError(
                    f"Query {row.id} has no picture {number}; they go from 0 to {len(shown_to_it) - 1}."
                )
            picture = shown_to_it[number]
            # A browser asks again and again, and is told that it has the picture already.
            kept = {"ETag": f'"{pictures.version(picture, self.run.images)}"', "Cache-Control": KEPT}
            if request.headers.get("if-none-match") == kept["ETag"]:
                return Response(status_code=304, headers=kept)
            of = pictures.thumbnail if "small" in request.query_params else pictures.served
            content, kind = await run_in_threadpool(of, picture, self.run.images)
        except STRANGE as error:
            raise HTTPException(404, _why(error)) from None
        return Response(content, media_type=kind, headers=kept)

    async def trouble(self, request: Request, error: Exception) -> Response:
        """A page in place of a traceback, whatever a folder that somebody sent holds."""
        if isinstance(error, HTTPException):
            return self.page("trouble.html", error.status_code, message=error.detail)
        return self.page("trouble.html", 503, message=_why(error))


def _why(error: Exception) -> str:
    known = isinstance(error, UserError)
    return str(error) if known else f"A record is none that this version can show ({error!r})."


@functools.cache
def templates() -> jinja2.Environment:
    """Ours, each compiled once."""
    loader = jinja2.FileSystemLoader(HERE / "templates")
    made = jinja2.Environment(
        autoescape=True, loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"part": lambda id: quote(id, safe="", errors="replace"), "shown": shown, "apart": apart}
    return made


def _lost_line(lost: Mapping[str, str], images: str | None) -> str:
    """What to do where the files of pictures on a page are not there; "" where they all are."""
    if not lost:
        return ""
    first = next(iter(lost.values()))
    looked = advice(first, images)
    return f"The pictures of {len(lost)} queries on this page are not there; the first {looked}."


def application(run: IndexedRun) -> Starlette:
    """The server of a run's pages."""
    pages = Pages(run)
    routes = [
        Route("/", pages.index),
        Route("/query/{id:path}", pages.query),
        Route("/pair/{id:path}/mark", pages.mark, methods=["POST"]),
        Route("/pair/{id:path}", pages.pair),
        Route("/picture/{id:path}/{number:int}", pages.picture),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    guards = [Middleware(Guarded), Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)]
    handlers: dict[Any, Any] = dict.fromkeys((HTTPException, *STRANGE), pages.trouble)
    return Starlette(routes=routes, middleware=guards, exception_handlers=handlers)

"""The web page of server-parallel: the files of a folder, if there is one, and else our own two, which lie here."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from plait.errors import NotFound

OWN = {"index.html": "text/html", "index.js": "text/javascript"}


class Page:
    """Shows files by their paths, and nothing that lies outside of their folder."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = StaticFiles(directory=folder) if folder else None

    async def show(self, http: Request) -> Response:
        """`GET /`, `GET /index.js`, and with a folder any other path."""
        name = http.path_params.get("path", "index.js" if http.url.path.endswith("/index.js") else "")
        if not name or name.endswith("/"):
            name += "index.html"
        try:
            if self.folder:
                return await self.folder.get_response(name, http.scope)
        except HTTPException:
            pass
        if name not in OWN:
            raise NotFound(f"there is no file {name}")
        return FileResponse(Path(__file__).with_name(name), media_type=OWN[name])

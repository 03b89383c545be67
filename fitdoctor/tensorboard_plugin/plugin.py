"""The routes of the tab: its files, the rows of its runs, the sheet of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from fitdoctor.reporters.script import static
from fitdoctor.tensorboard_plugin.places import places
from fitdoctor.tensorboard_plugin.watch import LogWatch

App = Callable[..., Any]
Answer = Callable[[wrappers.Request], wrappers.Response]

_TYPES = {"js": "text/javascript", "css": "text/css"}


class FitdoctorPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # tensorboard has no types
    """The tab of one TensorBoard."""

    plugin_name = "fitdoctor"

    def __init__(self, context: base_plugin.TBContext) -> None:
        spec = getattr(context.flags, "logdir_spec", "") or ""
        # The files are read, not TensorBoard's own store of them: that keeps a random thousand points of a curve.
        self._watch = LogWatch(*places(context.logdir or "", spec))

    def is_active(self) -> bool:
        """Always: without a run the tab says how to get one. TensorBoard asks often, so nothing is looked up."""
        return True

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Where the tab's script is."""
        return base_plugin.FrontendMetadata(es_module_path="/static/tab.js", tab_name="fitdoctor")

    def get_plugin_apps(self) -> dict[str, App]:
        """The routes, below ``/data/plugin/fitdoctor``."""
        return {
            "/static/*": _app(self._static),
            "/runs": _app(self._runs),
            "/run": _app(self._run),
        }

    def _static(self, request: wrappers.Request) -> wrappers.Response:
        name = request.path.rsplit("/", 1)[-1]
        try:
            text = static(name)
        except FileNotFoundError:
            return _respond(request, "not found", "text/plain", code=404)
        return _respond(request, text, _TYPES[name.rsplit(".", 1)[-1]])

    def _runs(self, request: wrappers.Request) -> wrappers.Response:
        wanted = [int(n) for n in request.args.get("want", "").split(",")[:100] if n.isdecimal() and len(n) < 10]
        news = self._watch.rows(request.args.get("session", ""), request.args.get("since", 0, type=int), wanted=wanted)
        return _respond(request, json.dumps(news, allow_nan=False), "application/json")

    def _run(self, request: wrappers.Request) -> wrappers.Response:
        packed = self._watch.sheet(request.args.get("run", ""))
        if packed is None:
            return _respond(request, "null", "application/json")
        return _respond(request, packed, "application/json", content_encoding="gzip")


def _app(answer: Answer) -> App:
    """A WSGI application that only answers questions."""

    @wrappers.Request.application
    def app(request: wrappers.Request) -> wrappers.Response:
        if request.method not in ("GET", "HEAD"):
            return _respond(request, "only GET is answered", "text/plain", code=405)
        return answer(request)

    return app


def _respond(request: wrappers.Request, content: str | bytes, content_type: str, **more: Any) -> wrappers.Response:
    response: wrappers.Response = http_util.Respond(request, content, content_type, **more)
    return response

"""The tab *fitdoctor* in TensorBoard: what is wrong with each run below the log folder.

TensorBoard imports this module at its own start, and ends if that fails. So nothing but its plugin interface is
imported here; the rest is loaded in `FitdoctorLoader.load`, whose failure costs TensorBoard one warning.

    __init__.py   what TensorBoard finds through the entry point
    plugin.py     the routes
    places.py     which folders may be read
    watch.py      the runs, judged in the background, and their sheets
"""

from __future__ import annotations

from tensorboard.plugins import base_plugin


class FitdoctorLoader(base_plugin.TBLoader):  # type: ignore[misc]  # tensorboard has no types
    """Makes the plugin when TensorBoard starts."""

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin:
        """The plugin for one TensorBoard."""
        from fitdoctor.tensorboard_plugin.plugin import FitdoctorPlugin

        return FitdoctorPlugin(context)

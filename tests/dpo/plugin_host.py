"""A lab's host in a file that ``--spr_plugin`` names: its class is in no module that another process could
import."""

from spr_plugin.hooks.llava import LlavaHost
from spr_plugin.hookspecs import hookimpl


class FileHost(LlavaHost):
    pass


@hookimpl
def spr_host(trainer, namespace, config):
    return None  # the tests make it themselves

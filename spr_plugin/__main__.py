"""``python -m spr_plugin`` is ``spr``."""

from spr_plugin.cli import main

main()

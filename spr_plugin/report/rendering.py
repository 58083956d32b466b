"""Our templates, as jinja2 reads them."""

from pathlib import Path

from spr_plugin.errors import UserError


def template(name: str = "report.html"):
    """A template of ours; UserError where jinja2 is not installed."""
    try:
        import jinja2
    except ImportError:
        raise UserError("the report needs jinja2: pip install 'spr-plugin[report]'") from None
    folder = Path(__file__).with_name("templates")
    escape = jinja2.select_autoescape(["html"])  # a card is Markdown
    return jinja2.Environment(autoescape=escape, loader=jinja2.FileSystemLoader(folder)).get_template(name)

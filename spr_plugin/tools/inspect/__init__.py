"""``spr inspect``: a run as pages in the browser, served to this machine alone. Reads the run's logs, also
while they are written, and writes nothing but marks beside them.

In order: `rows` (what a list needs of a query), `choosing` (filters, order, search), `indexed` (a run's rows,
kept up with its logs), `texts` and `layers` (an answer and its boxes, for a template), `pictures`, `items` (a
page's data), `app` (routes), `serve` (the command).
"""

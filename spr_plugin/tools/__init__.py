"""What is called by itself: `spr score`, `spr demo`, the tables of the docs."""

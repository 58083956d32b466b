"""For notebooks and scripts: answers scored one picture at a time, and a run as tables and pictures."""

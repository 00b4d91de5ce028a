"""A live arena: contestants behind HTTP, pairs drawn, two answers paced alike, boards after every vote."""
